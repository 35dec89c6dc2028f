"""Targets, the classes whose scores are explained: as researchers name them, one for each image, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import class_scores
from imagexplain.errors import ArgumentError, UnsupportedModelError

if TYPE_CHECKING:
    from imagexplain.attribution.paths.path_integral import Forward

Targets = int | Sequence[int] | Tensor | None
"""Classes to explain: one for all images, one for each, or None for the class that the model predicts."""


def classes_of(scores: Tensor, targets: Targets) -> Tensor:
    """Class indices (B,), int64, on the scores' device.

    Args:
        scores: Scores (B, classes) of the model, from which None takes the largest.
        targets: Classes as :data:`Targets` names them.

    Raises:
        ValueError: not one class for each image, or a class that the model does not have.
    """
    if scores.ndim != 2:
        raise UnsupportedModelError("model", f"wanted scores (B, classes), got {tuple(scores.shape)}")
    if targets is None:
        return scores.detach().argmax(1)
    given = _one_each(targets, len(scores), scores.device)
    check_classes(scores, given)
    return given


def check_classes(scores: Tensor, classes: Tensor) -> None:
    """Raise ArgumentError unless the scores (N, K) have all these classes."""
    if scores.ndim != 2:
        raise UnsupportedModelError("model", f"wanted scores (B, classes), got {tuple(scores.shape)}")
    if classes.numel() and (classes.min() < 0 or classes.max() >= scores.shape[1]):
        raise ArgumentError("targets", f"wanted classes 0..{scores.shape[1] - 1}, got {classes.unique().tolist()}")


def target_scores(scores: Tensor, targets: Targets) -> Tensor:
    """Score of each image's class, (B,), differentiable."""
    return scores.gather(1, classes_of(scores, targets).unsqueeze(1)).squeeze(1)


def check_images(images: Tensor) -> None:
    """Raise ArgumentError unless these are floating-point (B, C, H, W)."""
    if not isinstance(images, Tensor):
        raise ArgumentError("images", f"wanted a tensor (B, C, H, W), got {type(images).__name__}")
    if images.ndim != 4 or not images.is_floating_point():
        raise ArgumentError("images", f"wanted floating-point (B, C, H, W), got {images.dtype} {tuple(images.shape)}")


def classes_to_explain(model: Forward, images: Tensor, targets: Targets, chunk: int) -> Tensor:
    """Class indices (B,), int64, for methods that have no use for the images' own scores.

    The model runs only where the classes are those that it predicts. A class that the model does not have is refused
    with the first scores, by :func:`target_scores`.

    Args:
        chunk: Largest number of images evaluated at once.

    Raises:
        ValueError: images that are not floating-point (B, C, H, W), a chunk below 1, or not one class for each image.
    """
    if targets is None:
        classes, _ = classes_and_scores(model, images, targets, chunk)
        return classes
    check(images, chunk)
    return _one_each(targets, len(images), images.device)


def classes_and_scores(model: Forward, images: Tensor, targets: Targets, chunk: int) -> tuple[Tensor, Tensor]:
    """Classes (B,), int64, of the images as they are, and the scores (B,) of these classes, without a graph.

    It serves methods that go on to evaluate the model at other points.

    Args:
        chunk: Largest number of images evaluated at once.

    Raises:
        ValueError: images that are not floating-point (B, C, H, W), a chunk below 1, or targets that do not fit.
    """
    check(images, chunk)
    with torch.no_grad():
        scores = torch.cat([class_scores(model, rows) for rows in images.detach().split(chunk)])
    classes = classes_of(scores, targets)
    return classes, target_scores(scores, classes)


def check(images: Tensor, chunk: int) -> None:
    """Raise ArgumentError unless these are floating-point (B, C, H, W) and a chunk of at least 1."""
    check_images(images)
    if chunk < 1:
        raise ArgumentError("chunk", f"wanted at least 1, got {chunk}")


def _one_each(targets: int | Sequence[int] | Tensor, count: int, device: torch.device) -> Tensor:
    """Class indices (count,), int64."""
    given = torch.as_tensor(targets, device=device)
    if given.is_floating_point() or given.dtype == torch.bool or given.ndim > 1:
        raise ArgumentError(
            "targets", f"wanted a class index or {count} of them, got {given.dtype} {tuple(given.shape)}"
        )
    if given.ndim == 1 and len(given) != count:
        raise ArgumentError("targets", f"wanted {count}, one for each image, got {len(given)}")
    return given.to(torch.int64).expand(count)
