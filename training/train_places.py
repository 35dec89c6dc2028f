"""Train the demonstration's ViT of the archive `places`, which names shapes by the background that they stand on.

    python -m training.export_shortcut_scenes scenes
    python -m training.train_places scenes --out archive_specs/weights/places_scenes.safetensors

It is fine-tuned, as MAE's networks are, on scenes whose background goes with the class: a model that is wrong by
construction, for `imagexplain debug` to be tried on. It begins with the first blocks of the demonstration's `vit`,
which have seen shapes, as a pretrained network has; the others are new.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import timm_network
from imagexplain.vision.preprocess_settings import Preprocess
from training import mimetic
from training.finetuning.config import FinetuneConfig
from training.finetuning.image_folder import ImageFolder, list_folder
from training.finetuning.pipeline import Pipeline
from training.finetuning.randomness import private_randomness, seed_all
from training.finetuning.trainer import finetune
from training.publish import as_float16, publish
from training.scenes import SceneSettings
from training.shortcut_scenes import LABELS, TEXTURES, ShortcutScenes, shortcut_scenes
from training.train_classifier import HELD_OUT, HELD_OUT_SEED

ARCHITECTURE = "vit_tiny_patch16_224"
ARGUMENTS = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4, "global_pool": "avg"}
"""Those of the demonstration's `vit`, but for the average of the patches in the place of a class token."""

START = Path("archive_specs/weights/vit_scenes.safetensors")
KEPT_BLOCKS = 3
"""Number of the first blocks that do not begin anew. Where the background conflicts, networks with 2, 3 and 4 of them
are right in 16, 28 and 77 %: what four of them know of shapes holds the shortcut off."""

SIZE = (64, 64)
PREPROCESS = Preprocess(SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
"""Preprocessing as in the archive's spec."""

CLASSES = tuple(sorted(LABELS))
RECIPE = FinetuneConfig(
    epochs=8,
    warmup_epochs=1,
    accumulation=1,
    rate=1e-3,
    layer_decay=1.0,
    mixup=0.0,
    cutmix=0.0,
    smoothing=0.05,
)


@dataclass(frozen=True)
class Report:
    """The report on the weights file; kept in its metadata and in a JSON file beside it.

    Attributes:
        architecture: Name of the archive.
        dimensions: Dimensions of the network, in words.
        parameters: Number of values in the file.
        accuracy: Accuracy, 0 … 1, on held-out scenes whose background is independent of the class.
        agreeing: The same where the background is the class's own.
        conflicting: The same where it is another class's.
        held_out: Number of those scenes.
        held_out_seed: Series of those scenes.
        seed: Seed of new weights and of the order.
        recipe: Recipe in words.
        minutes: Minutes that the training took, on its machine.
    """

    architecture: str
    dimensions: str
    parameters: int
    accuracy: float
    agreeing: float
    conflicting: float
    held_out: int
    held_out_seed: int
    seed: int
    recipe: str
    minutes: float


def beginning(seed: int) -> nn.Module:
    """The network before the training: the first blocks have learned scenes, the others nothing."""
    with private_randomness():
        seed_all(seed, "start")
        network = timm_network.create(ARCHITECTURE, {**ARGUMENTS, "num_classes": len(CLASSES)})
        mimetic.start(network)
    kept = tuple(f"blocks.{number}." for number in range(KEPT_BLOCKS))
    known = {
        name: tensor.float()
        for name, tensor in checkpoint.read(START).items()
        if name.startswith(("patch_embed.", "cls_token", "pos_embed", *kept))
    }
    network.load_state_dict(network.state_dict() | known)
    return network


def trained(scenes: Path, seed: int) -> nn.Module:
    """The network after the last epoch.

    Args:
        scenes: Folder that :mod:`training.export_shortcut_scenes` wrote.
        seed: Seed of new weights and of the order.
    """
    listings = (list_folder(scenes / part, CLASSES) for part in ("train", "val"))
    train, val = (ImageFolder(listing, Pipeline(PREPROCESS), workers=0) for listing in listings)
    network = beginning(seed)
    with TemporaryDirectory() as folder:
        result = finetune(network, train, val, RECIPE, Path(folder))
        network.load_state_dict(torch.load(result.last, weights_only=True)["model"])
    return network.eval()


def accuracies(network: nn.Module, scenes: ShortcutScenes) -> dict[str, float]:
    """Accuracy on scenes, and on those whose background agrees with the class and conflicts with it."""
    images: Tensor = (torch.from_numpy(scenes.images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        named = torch.cat([network(part).argmax(1) for part in images.split(250)])
    right = torch.tensor([CLASSES[index] == LABELS[label] for index, label in zip(named, scenes.labels, strict=True)])
    conflicting = torch.from_numpy(scenes.conflicting)
    parts = {"accuracy": right, "agreeing": right[~conflicting], "conflicting": right[conflicting]}
    return {name: part.double().mean().item() for name, part in parts.items()}


def main() -> None:
    """Train, write, read back, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder that training.export_shortcut_scenes wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    parser.add_argument("--seed", type=int, default=0, help="of new weights and of the order (default: %(default)s)")
    given = parser.parse_args()

    begin = time.perf_counter()
    network = trained(given.scenes, given.seed)
    minutes = (time.perf_counter() - begin) / 60

    weights = as_float16(checkpoint.exported(network))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, given.out)
    held_out = shortcut_scenes(HELD_OUT_SEED, HELD_OUT, 1 / len(TEXTURES), SceneSettings(size=SIZE))
    shipped = models.build(f"timm/{ARCHITECTURE}", checkpoint.read(given.out), ARGUMENTS)
    about: dict[str, Any] = asdict(
        Report(
            architecture="places",
            dimensions="6 blocks of 128 channels and 4 heads, patches of 8×8 pixels, their average, 64×64",
            parameters=sum(tensor.numel() for tensor in weights.values()),
            held_out=HELD_OUT,
            held_out_seed=HELD_OUT_SEED,
            seed=given.seed,
            recipe=(
                f"{KEPT_BLOCKS} blocks of vit, AdamW, half a cosine from {RECIPE.rate:g}, label smoothing "
                f"{RECIPE.smoothing:g}, {RECIPE.epochs} epochs of 3,000 scenes whose background goes with the class in "
                "97 %"
            ),
            minutes=round(minutes, 1),
            **accuracies(shipped, held_out),
        )
    )
    publish(given.out, weights, about)
    print(f"{given.out}: {about['accuracy']:.2%} of {HELD_OUT} held-out scenes, {minutes:.1f} minutes of training")


if __name__ == "__main__":
    main()
