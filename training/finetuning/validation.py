"""Accuracy on the validation images, by which the best epoch is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from training.finetuning.labelled_images import LabelledImages
from training.finetuning.precision import autocast
from training.finetuning.processes import ALONE, Processes

TOP = 5


@dataclass(frozen=True)
class Validation:
    """The result on a set of images.

    Attributes:
        loss: Mean cross-entropy.
        accuracy: Share of images whose highest logit is their label, 0 … 1.
        top5: Share of those whose label is among the five highest; None where there are at most five classes.
        per_class: Accuracy by class.
    """

    loss: float
    accuracy: float
    top5: float | None
    per_class: Mapping[str, float]


@torch.no_grad()
def validate(
    network: nn.Module, images: LabelledImages, batch: int, precision: str = "float32", processes: Processes = ALONE
) -> Validation:
    """Score a network, in ``eval()`` meanwhile, on images of which each process takes its share.

    Args:
        network: Network from images (B, 3, H, W) to logits (B, classes).
        images: Images with one label each, at least one of every class.
        batch: Number of images at once.
        precision: Numbers of the forward pass.
        processes: Processes that share the work.
    """
    device = next(network.parameters()).device
    classes = len(images.classes)
    sums = torch.zeros(2 + 2 * classes, dtype=torch.float64, device=device)
    loss, top, right, count = sums[0], sums[1], sums[2 : 2 + classes], sums[2 + classes :]  # views
    share = torch.arange(len(images.labels))[processes.rank :: processes.count]
    order = list(share.split(batch)) if len(share) else []
    training = network.training
    network.eval()
    for pixels, label in images.batches(order, seed=0):
        labels = label.to(device)
        with autocast(device, precision):
            logits = network(pixels.to(device, non_blocking=True))
        logits = logits.float()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hits = logits.argmax(1) == labels
        top += (logits.topk(min(TOP, classes), 1).indices == labels[:, None]).any(1).sum()
        right += torch.bincount(labels, hits.double(), minlength=classes)
        count += torch.bincount(labels, minlength=classes)
    network.train(training)
    sums = processes.total(sums).cpu()
    right, count = sums[2 : 2 + classes], sums[2 + classes :]
    total = float(count.sum())
    return Validation(
        loss=float(sums[0]) / total,
        accuracy=float(right.sum()) / total,
        top5=float(sums[1]) / total if classes > TOP else None,
        per_class=dict(zip(images.classes, (right / count).tolist(), strict=True)),
    )
