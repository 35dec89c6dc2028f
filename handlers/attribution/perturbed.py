"""What the methods that only look at a model's scores of changed images have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.attribution.path import Forward
from handlers.attribution.targets import Targets, classes_of, target_scores


def classes_and_scores(model: Forward, images: Tensor, targets: Targets, chunk: int) -> tuple[Tensor, Tensor]:
    """(B,) int64 classes that the targets name and the (B,) scores of them, ``chunk`` images evaluated at once.

    Raises:
        ValueError: images that are not (B, C, H, W), a chunk below 1, or targets that do not fit.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images: wanted (B, C, H, W) floating point, got {tuple(images.shape)} {images.dtype}")
    if chunk < 1:
        raise ValueError(f"chunk: wanted at least 1, got {chunk}")
    with torch.no_grad():
        scores = torch.cat([model(rows) for rows in images.detach().split(chunk)])
    classes = classes_of(scores, targets)
    return classes, target_scores(scores, classes)


def expanded(name: str, values: float | Tensor | None, images: Tensor) -> Tensor:
    """What stands for absence, as (B, C, H, W) like the images: a number, a tensor that broadcasts, or None for 0.

    Raises:
        ValueError: a shape that does not broadcast.
    """
    given = torch.as_tensor(0.0 if values is None else values).detach().to(images)
    try:
        return given.expand_as(images)
    except RuntimeError:
        raise ValueError(f"{name}: wanted a number or {tuple(images.shape)}, got {tuple(given.shape)}") from None
