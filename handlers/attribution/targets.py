"""Which score an attribution is of: classes as researchers name them, one for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Targets = int | Sequence[int] | Tensor | None
"""One class for all images, one for each, or None for the class that the model predicts."""


def classes_of(scores: Tensor, targets: Targets) -> Tensor:
    """(B,) int64 class indices on the scores' device.

    Args:
        scores: (B, classes) of the model, from which None takes the largest.
        targets: see :data:`Targets`.

    Raises:
        ValueError: not one class for each image, or a class that the model does not have.
    """
    if scores.ndim != 2:
        raise ValueError(f"model: wanted scores (B, classes), got {tuple(scores.shape)}")
    count, classes = scores.shape
    if targets is None:
        return scores.detach().argmax(1)
    given = torch.as_tensor(targets, device=scores.device)
    if given.is_floating_point() or given.dtype == torch.bool or given.ndim > 1:
        raise ValueError(f"targets: wanted a class index or {count} of them, got {given.dtype} {tuple(given.shape)}")
    if given.ndim == 1 and len(given) != count:
        raise ValueError(f"targets: wanted {count}, one for each image, got {len(given)}")
    if count and (given.min() < 0 or given.max() >= classes):
        raise ValueError(f"targets: wanted classes 0..{classes - 1}, got {given.tolist()}")
    return given.to(torch.int64).expand(count)


def target_scores(scores: Tensor, targets: Targets) -> Tensor:
    """(B,) each image's score of its class, differentiable."""
    return scores.gather(1, classes_of(scores, targets).unsqueeze(1)).squeeze(1)
