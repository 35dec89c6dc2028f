"""Train a demonstration classifier on synthetic scenes and write its weights as float16 safetensors.

    python -m training.train_classifier lanet --out archive_specs/weights/lanet_scenes.safetensors

All models share the recipe: AdamW with a one-cycle schedule, label smoothing, and scenes that are turned over and have
their colour channels exchanged. These are symmetries of the generator, so an altered scene is as good as a fresh one.
The transformers' matrices take Muon's steps: 1,500 steps into its recipe the ViT named 76 % of the scenes, with AdamW
alone 53 %.
The accuracy that is reported is that of the file as written, read back the way an archive reads it, on held-out scenes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import bit, lanet, timm_network
from training import mimetic, pool
from training.publish import as_float16, publish
from training.scenes import CLASSES, SceneSettings

HELD_OUT_SEED = 1_000_003  # the series that no training reads
HELD_OUT = 4000
PROGRESS_SEED = 1_000_033  # the series that the progress line is measured on
PROGRESS = 500

Labelled = tuple[Tensor, Tensor]
"""Images (N, H, W, 3) uint8 and labels (N,) int64."""


@dataclass(frozen=True)
class Recipe:
    """The making and training of one model.

    Attributes:
        architecture: Architecture, as in the model's archive spec.
        create: Function that makes the untrained network; in training that returns logits (B, classes), alone or first
            of a tuple.
        export: Function that names its tensors as the authors' checkpoints do.
        dimensions: Dimensions of the network, in words.
        mean: Mean of the input's RGB channels in 0 … 1, as in the model's archive spec.
        std: Standard deviation, likewise.
        arguments: Arguments of a model of timm, as in its archive spec.
        start: Function that gives the untrained network weights to start from, if any.
        beginning: Description of that start, in words.
        size: Height and width of the scenes in pixels.
        scenes: Number of scenes drawn to train on.
        steps: Number of the optimiser's steps.
        batch: Number of images per step.
        rate: Highest learning rate of the one-cycle schedule.
        decay: AdamW's weight decay, for weights of two and more dimensions.
        smoothing: Label smoothing.
        layout: Layout of images and weights in memory, whichever trains faster.
        half: Flag for products in bfloat16, where that trains faster.
        tokens: Weight of the loss of token labels (:class:`TokenLabelled`), for a transformer; 0 for none.
    """

    architecture: str
    create: Callable[[], nn.Module]
    export: Callable[[nn.Module], dict[str, Tensor]]
    dimensions: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    start: Callable[[nn.Module], None] | None = None
    beginning: str = ""
    size: int = 32
    scenes: int = 100_000
    steps: int = 10_000
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.05
    smoothing: float = 0.05
    layout: torch.memory_format = torch.contiguous_format
    half: bool = False
    tokens: float = 0.0


def of_timm(name: str, arguments: Mapping[str, Any], dimensions: str, **values: Any) -> Recipe:
    """The recipe of a model of timm, with timm's mean and standard deviation."""
    usual = timm_network.preprocess(name, arguments)
    return Recipe(
        architecture=f"timm/{name}",
        create=lambda: timm_network.create(name, {"num_classes": len(CLASSES), **arguments}),
        export=checkpoint.exported,
        dimensions=dimensions,
        mean=usual["mean"],
        std=usual["std"],
        arguments=arguments,
        **values,
    )


RECIPES: Mapping[str, Recipe] = {
    "lanet": Recipe(
        architecture="lanet",
        create=lambda: lanet.LaNet(channels=16, layers=4, classes=len(CLASSES)),
        export=lanet.export,
        dimensions="16 channels, 4 layers",
        mean=(0.49139968, 0.48215827, 0.44653124),
        std=(0.24703233, 0.24348505, 0.26158768),
        steps=2_000,
        layout=torch.channels_last,
    ),
    "bit": Recipe(
        architecture="bit",
        create=lambda: bit.bit(layers=(1, 1, 1, 1), channels=(128, 256, 512, 512), stem=64, classes=len(CLASSES)),
        export=bit.export,
        dimensions="1 unit in each of 4 blocks of 128, 256, 512, 512 channels",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        steps=12_000,
        rate=2e-3,
    ),
    "resnet": of_timm(
        "resnet18",
        {"channels": [24, 48, 96, 192], "output_stride": 16},
        "ResNet-18 of 24, 48, 96, 192 channels, the last stage dilated",
        size=128,
        scenes=40_000,
        steps=2_000,
        rate=4e-3,
        layout=torch.channels_last,
        half=True,
    ),
    "vit": of_timm(
        "vit_tiny_patch16_224",
        {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4},
        "6 blocks of 128 channels and 4 heads, patches of 8×8 pixels, a class token",
        start=mimetic.start,
        beginning="mimetic initialisation",
        size=64,
        scenes=60_000,
        steps=6_000,
        rate=1.5e-3,
        tokens=1.0,
    ),
    "swin_classifier": of_timm(
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 8, "embed_dim": 64, "depths": [2, 6], "num_heads": [2, 4]},
        "2 and 6 blocks in 2 stages of 64 and 128 channels, windows of 8×8 tokens",
        size=64,
        scenes=60_000,
        steps=7_000,
        rate=1.5e-3,
        half=True,
        tokens=1.0,
    ),
}


@dataclass(frozen=True)
class Report:
    """The report on a weights file; kept in its metadata and in a JSON file beside it.

    Attributes:
        architecture: Key of RECIPES.
        dimensions: Dimensions of the network, in words.
        parameters: Number of values in the file, the statistics of batch norms included.
        accuracy: Accuracy of the file's float16 weights on the held-out scenes, 0 … 1.
        held_out: Number of those scenes.
        held_out_seed: Series of those scenes.
        seed: Seed of the training scenes, the initial weights and the order.
        recipe: Recipe in words.
        minutes: Minutes that the training took, on its machine.
    """

    architecture: str
    dimensions: str
    parameters: int
    accuracy: float
    held_out: int
    held_out_seed: int
    seed: int
    recipe: str
    minutes: float


class TokenLabelled(nn.Module):
    """A vision transformer of timm that also says of each patch whether it shows the deciding object, and which.

    A class alone tells a transformer without convolutions too little: it needs many times the scenes. The layer that
    reads the patches is for training only.

    Source: Jiang et al. 2021, "All Tokens Matter: Token Labeling for Training Better Vision Transformers", arXiv
    2104.10858, with the scene's own mask in place of a teacher's.
    """

    def __init__(self, network: Any, classes: int) -> None:
        super().__init__()
        self.network = network
        self.tokens = nn.Linear(network.num_features, classes + 1)

    def hidden(self) -> list[Tensor]:
        """The matrices between pixels and classes: of all linear layers but the two that read classes."""
        readers = (self.network.get_classifier(), self.tokens)
        return [layer.weight for layer in self.modules() if isinstance(layer, nn.Linear) and layer not in readers]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes), and of the patches (B, N, classes + 1), the last one for those beside the object."""
        features = self.network.forward_features(images)
        prefix = getattr(self.network, "num_prefix_tokens", 0)
        patches = features.flatten(1, 2) if features.ndim == 4 else features[:, prefix:]
        return self.network.forward_head(features), self.tokens(patches)


def token_labels(masks: Tensor, labels: Tensor, tokens: int, classes: int) -> Tensor:
    """(B, N) int64: the scene's class where the deciding object covers half of a patch or more, else ``classes``.

    Args:
        masks: (B, H, W), not 0 where the deciding object shows.
        labels: (B,) int64.
        tokens: N, in a square grid.
        classes: Number of the scenes' classes.
    """
    side = math.isqrt(tokens)
    cover = F.adaptive_avg_pool2d((masks != 0).float(), side).flatten(1)
    return torch.where(cover >= 0.5, labels[:, None], classes)


def normalised(images: Tensor, recipe: Recipe) -> Tensor:
    """The model's input (B, 3, H, W) float32 of images (B, H, W, 3 or more) uint8, whose colours come first."""
    x = images[..., :3].permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(recipe.mean)[:, None, None]) / torch.tensor(recipe.std)[:, None, None]


def altered(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, H, W, 3), every image under a random symmetry of the generator: mirrored, transposed, channels exchanged.

    A mask as a fourth channel goes along.
    """

    def chosen() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5

    images = torch.where(chosen(), images.flip(1), images)
    images = torch.where(chosen(), images.flip(2), images)
    if images.shape[1] == images.shape[2]:
        images = torch.where(chosen(), images.transpose(1, 2), images)
    order = torch.rand(len(images), 3, generator=generator).argsort(1)
    colours = images[..., :3]
    return torch.cat([colours.gather(3, order[:, None, None].expand_as(colours)), images[..., 3:]], 3)


def batches(count: int, batch: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The indices (batch,) of each step's images: every image once before any comes again."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def tensors(scenes: pool.Labelled) -> Labelled:
    """The same scenes as tensors, sharing their memory."""
    return torch.from_numpy(scenes[0]), torch.from_numpy(scenes[1])


def accuracy(model: nn.Module, scenes: Labelled, recipe: Recipe) -> float:
    """The share, 0 … 1, of scenes whose highest logit is their label; the model's mode stays as it was."""
    images, labels = scenes
    training = model.training
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(normalised(part, recipe)).argmax(1) == label).sum())
            for part, label in zip(images.split(250), labels.split(250), strict=True)
        )
    model.train(training)
    return right / len(labels)


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for the weights of a model, but Muon for the hidden matrices of a transformer.

    Muon's steps are scaled to the size of AdamW's, so that one learning rate does for both.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale is that of Liu et
    al. 2025, "Muon is Scalable for LLM Training", arXiv 2502.16982.
    """
    hidden = model.hidden() if isinstance(model, TokenLabelled) else []
    taken = {id(weight) for weight in hidden}
    others = [weight for weight in model.parameters() if id(weight) not in taken]
    groups = [
        {"params": [weight for weight in others if weight.ndim > 1], "weight_decay": recipe.decay},
        {"params": [weight for weight in others if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=recipe.rate)
    if not hidden:
        return [adamw]
    muon = torch.optim.Muon(hidden, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]


def train(
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    check: Labelled,
    seed: int,
    compiled: bool = False,
) -> nn.Module:
    """The trained network, in `eval()`.

    Args:
        recipe: Recipe of the model.
        images: (N, H, W, 3) uint8, with the deciding object's mask as a fourth channel where there are token labels.
        labels: (N,) int64.
        check: Images and labels on which the progress line's accuracy is measured; nothing is decided by it.
        seed: Seed of the initial weights, the order and the alterations.
        compiled: Flag for `torch.compile`, which joins the small operations first: minutes of waiting for twice the
            speed.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = recipe.create()
    if recipe.start is not None:
        recipe.start(model)
    model = model.train().to(memory_format=recipe.layout)
    whole = TokenLabelled(model, len(CLASSES)) if recipe.tokens else model
    run = torch.compile(whole) if compiled else whole
    weights = list(whole.parameters())
    steppers = optimisers(whole, recipe)
    schedules = [
        # AdamW's momentum goes down as the rate goes up, Muon's stays at its authors' value
        OneCycleLR(each, recipe.rate, recipe.steps, pct_start=0.2, cycle_momentum=isinstance(each, torch.optim.AdamW))
        for each in steppers
    ]
    order = batches(len(labels), recipe.batch, recipe.steps, generator)
    with tqdm(order, total=recipe.steps, desc="training", unit="step") as progress:
        for step, chosen in enumerate(progress, start=1):
            seen = altered(images[chosen], generator)
            x = normalised(seen, recipe).contiguous(memory_format=recipe.layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
                outcome = run(x)
            logits = (outcome[0] if isinstance(outcome, tuple) else outcome).float()
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=recipe.smoothing)
            if recipe.tokens:
                aims = token_labels(seen[..., 3], labels[chosen], outcome[1].shape[1], len(CLASSES))
                loss = loss + recipe.tokens * F.cross_entropy(outcome[1].flatten(0, 1), aims.flatten())
            whole.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            for optimiser, schedule in zip(steppers, schedules, strict=True):
                optimiser.step()
                schedule.step()
            if step % max(recipe.steps // 20, 1) == 0:
                progress.set_postfix(loss=f"{loss.item():.3f}", accuracy=f"{accuracy(model, check, recipe):.3f}")
    return model.eval()


def in_words(recipe: Recipe) -> str:
    """The training of the weights, in words for their reader."""
    optimiser = "Muon and AdamW" if recipe.tokens else "AdamW"
    parts = [optimiser, f"one cycle to {recipe.rate:g}", f"weight decay {recipe.decay:g}"]
    parts += [f"label smoothing {recipe.smoothing:g}"]
    parts += ["token labels"] if recipe.tokens else []
    parts += [recipe.beginning] if recipe.beginning else []
    return ", ".join([*parts, f"{recipe.steps:,} steps of {recipe.batch}", f"from {recipe.scenes:,} scenes"])


def main() -> None:
    """Draw, train, write, read back, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("architecture", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the training scenes, the initial weights and the order")
    parser.add_argument("--steps", type=int, help="of the optimiser, in place of the recipe's")
    parser.add_argument("--scenes", type=int, help="to train on, in place of the recipe's")
    parser.add_argument("--kept", type=Path, metavar="NPZ", help="keep the drawn scenes here, or read them from here")
    parser.add_argument("--threads", type=int, help="cores to train on")
    parser.add_argument("--compile", action="store_true", help="train through torch.compile; needs a C++ compiler")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)

    changes = {name: value for name in ("steps", "scenes") if (value := getattr(given, name))}
    recipe = Recipe(**(vars(RECIPES[given.architecture]) | changes))
    settings = SceneSettings(size=(recipe.size, recipe.size))
    masks = recipe.tokens > 0
    images, labels = tensors(pool.draw_or_read(given.kept, given.seed, recipe.scenes, settings, masks))
    check = tensors(pool.draw(PROGRESS_SEED, PROGRESS, settings))

    begin = time.perf_counter()
    model = train(recipe, images, labels, check, given.seed, given.compile)
    minutes = (time.perf_counter() - begin) / 60

    weights = as_float16(recipe.export(model))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, given.out)
    held_out = tensors(pool.draw(HELD_OUT_SEED, HELD_OUT, settings))
    shipped = models.build(recipe.architecture, checkpoint.read(given.out), recipe.arguments)
    report = Report(
        architecture=given.architecture,
        dimensions=f"{recipe.dimensions}, {recipe.size}×{recipe.size}",
        parameters=sum(tensor.numel() for tensor in weights.values()),
        accuracy=accuracy(shipped, held_out, recipe),
        held_out=HELD_OUT,
        held_out_seed=HELD_OUT_SEED,
        seed=given.seed,
        recipe=in_words(recipe),
        minutes=round(minutes, 1),
    )
    publish(given.out, weights, asdict(report))
    print(f"{given.out}: {report.accuracy:.2%} of {HELD_OUT} held-out scenes, {minutes:.1f} minutes of training")


if __name__ == "__main__":
    main()
