"""Train the demonstration TensorMask on synthetic scenes and write its weights as float16 safetensors.

    python -m training.train_tensormask --out archive_specs/weights/tensormask_scenes.safetensors

The rule and the losses are the paper's (training/tensormask_targets.py, training/tensormask_losses.py); the network is
the served one, narrower, with batch norms that learn until they are frozen in the file. AdamW, one cycle. The average
precision that is reported is that of the file as written, on held-out scenes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.segmenters import tensormask
from imagexplain.models.segmenters.resnet_fpn import STRIDES, Stage
from imagexplain.models.segmenters.tensormask import TensorMask, TensorMaskSettings, TensorMaskSize
from training.average_precision import Precision, mask_precision
from training.instances import Instances, altered, boxes_of, draw, masks_of
from training.publish import as_float16, publish
from training.scenes import CLASSES
from training.tensormask_losses import box_loss, class_loss, mask_loss
from training.tensormask_targets import BACKGROUND, mask_in_window, targets
from training.train_classifier import HELD_OUT_SEED, PROGRESS_SEED

SIZE = TensorMaskSize(
    classes=len(CLASSES),
    stem=32,
    stages=(Stage(1, 32, 64), Stage(2, 48, 128), Stage(2, 64, 256), Stage(1, 96, 320)),
    channels=64,
    convs=2,
    towers=(64, 64, 32),
)
SETTINGS = TensorMaskSettings(mask_sizes=(8, 11), detections=50)
PRIOR = 0.01
"""Probability that an untrained window gives each class."""

HELD_OUT = 1000
PROGRESS = 100
CHECKED = 300
"""Steps between two looks at the progress."""

WINDOWS = 12
"""Number of masks trained per step and picture, at most."""


def untrained() -> TensorMask:
    """The network with the paper's initial weights."""
    network = TensorMask(SIZE, SETTINGS, nn.BatchNorm2d)
    for layer in network.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in network.head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01 if layer.kernel_size == (1, 1) else 0.03)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    assert network.head.cls_score.bias is not None
    nn.init.constant_(network.head.cls_score.bias, float(torch.tensor(PRIOR).logit()))
    return network


def losses(network: TensorMask, images: Tensor, owners: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
    """(3,) losses of classes, boxes and masks, per window with an object.

    Args:
        network: Network in training mode.
        images: (B, H, W, 3) uint8 RGB.
        owners, classes: Instances, see :class:`training.instances.Instances`.
        generator: Generator that chooses the windows whose masks are trained.
    """
    outputs = network(normalised(images))
    shapes = [(logits.shape[3], logits.shape[4]) for logits in outputs.logits]
    windows = tensormask.identities(shapes, len(SETTINGS.mask_sizes))  # (M, 4)
    boxes = tensormask.anchor_boxes(windows, SETTINGS)
    units = torch.tensor(STRIDES)[windows[:, 0]].float()
    smallest = float(STRIDES[0] * (min(SETTINGS.mask_sizes) - 1))
    # (B, M, K), (B, M, 4), in the order of `windows`
    logits = torch.cat([x.permute(0, 3, 4, 1, 2).flatten(1, 3) for x in outputs.logits], 1)
    deltas = torch.cat([x.permute(0, 3, 4, 1, 2).flatten(1, 3) for x in outputs.deltas], 1)
    total, found = images.new_zeros(3, dtype=torch.float32), 0
    chosen, wanted = [], []
    for row in range(len(images)):
        masks, labels = masks_of(owners[row], classes[row])
        aims = targets(boxes_of(masks), labels, boxes, units, smallest)
        positive = (aims.matched != BACKGROUND).nonzero()[:, 0]
        found += len(positive)
        of_classes, of_boxes = class_loss(logits[row], aims.classes), box_loss(deltas[row, positive], aims.deltas)
        total = total + torch.stack([of_classes, of_boxes, total.new_zeros(())])
        some = positive[torch.randperm(len(positive), generator=generator)[:WINDOWS]]
        chosen.append(torch.cat([torch.full((len(some), 1), row), windows[some]], 1))
        wanted += [(masks[aims.matched[window]], boxes[window]) for window in some.tolist()]
    anchors = torch.cat(chosen)
    predicted = network.head.masks(outputs.features, anchors)
    of_masks = total.new_zeros(())
    for side in {len(mask) for mask in predicted}:
        rows = [row for row, mask in enumerate(predicted) if len(mask) == side]
        truth = mask_in_window(
            torch.stack([wanted[row][0] for row in rows]), torch.stack([wanted[row][1] for row in rows]), side
        )
        of_masks = of_masks + mask_loss(torch.stack([predicted[row] for row in rows]), truth)
    return torch.cat([total[:2] / max(found, 1), (of_masks / max(len(anchors), 1)).reshape(1)])


def normalised(images: Tensor) -> Tensor:
    """The network's input of images (B, H, W, 3) uint8 RGB."""
    return tensormask.normalised(images.permute(0, 3, 1, 2).flip(1).float(), SETTINGS)


def train(
    scenes: Instances, check: Instances, steps: int, batch: int, rate: float, seed: int, latest: Path
) -> TensorMask:
    """The trained network, its batch norms still learning ones; on the way, its weights so far go to ``latest``."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = untrained()
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    order = torch.randperm(len(scenes), generator=generator)
    progress = tqdm(range(steps), desc="training", unit="step", mininterval=10)
    for step in progress:
        rows = order[torch.arange(step * batch, (step + 1) * batch) % len(order)]
        images, owners = altered(scenes.images[rows], scenes.owners[rows], generator)
        parts = losses(network.train(), images, owners, scenes.classes[rows], generator)
        optimizer.zero_grad(set_to_none=True)
        parts.sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix_str(" ".join(f"{value:.3f}" for value in parts.tolist()))
        if (step + 1) % CHECKED == 0:
            tqdm.write(f"step {step + 1}: {measured(shipped(network), check)}")
            save_file(as_float16(tensormask.export(network)), latest)
    return network


def shipped(network: TensorMask) -> TensorMask:
    """The network as it is served: from its tensors, with frozen batch norms."""
    return tensormask.build(tensormask.export(network), SETTINGS)


def measured(network: TensorMask, scenes: Instances) -> Precision:
    """The average precision of the network's masks."""
    found = []
    for image in scenes.images:
        detections = tensormask.detect(network, normalised(image[None]))
        found.append((detections.masks, detections.scores, detections.labels))
    return mask_precision(found, scenes)


@dataclass(frozen=True)
class Report:
    """The report on the weights file; kept in its metadata and in a JSON file beside it."""

    architecture: str
    dimensions: str
    parameters: int
    ap: float
    ap50: float
    held_out: int
    held_out_seed: int
    seed: int
    recipe: str
    minutes: float


def main() -> None:
    """Draw, train, write, read back, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="cores to train on")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    scenes, check = draw(given.seed, given.scenes), draw(PROGRESS_SEED, PROGRESS)
    begin = time.perf_counter()
    network = train(scenes, check, given.steps, given.batch, given.rate, given.seed, given.out)
    minutes = (time.perf_counter() - begin) / 60
    weights = as_float16(tensormask.export(network))
    save_file(weights, given.out)
    served = tensormask.build(checkpoint.read(given.out), SETTINGS)
    precision = measured(served, draw(HELD_OUT_SEED, HELD_OUT))
    report = Report(
        architecture="tensormask",
        dimensions=f"{SIZE.channels} channels, {SIZE.convs} convolutions in each tower, 128×128",
        parameters=sum(tensor.numel() for tensor in weights.values()),
        ap=precision.ap,
        ap50=precision.ap50,
        held_out=HELD_OUT,
        held_out_seed=HELD_OUT_SEED,
        seed=given.seed,
        recipe=f"AdamW, one cycle to {given.rate:g}, {given.steps:,} steps of {given.batch}, "
        f"from {given.scenes:,} scenes",
        minutes=round(minutes, 1),
    )
    publish(given.out, weights, asdict(report))
    print(f"{given.out}: mask AP50 {precision.ap50:.3f}, AP {precision.ap:.3f}, {minutes:.1f} minutes of training")


if __name__ == "__main__":
    main()
