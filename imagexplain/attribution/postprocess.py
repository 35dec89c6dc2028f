"""Postprocessing of maps: scaling to 0..1 for the eye, a threshold for localisation, overlap of masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imagexplain.errors import ArgumentError

CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda maps: maps.sum(1, keepdim=True),
    "mean": lambda maps: maps.mean(1, keepdim=True),
    "max": lambda maps: maps.amax(1, keepdim=True),
    "abs": lambda maps: maps.abs().sum(1, keepdim=True),
}
"""Reductions of the channels to one: the sum keeps completeness, "abs" sums magnitudes and so forgets the sign."""


def normalize(maps: Tensor, *, channels: str = "sum") -> Tensor:
    """Scale each map to 0..1, for display and for metrics that want one non-negative value a pixel.

    The channels become one, negative values become 0, and each image's range is stretched to 0..1. A map that has no
    range then (all zero, all negative, constant) gives zeros.

    Args:
        maps: Maps (B, C, H, W), signed or not, finite; left as they are.
        channels: Reduction of the channels, a key of :data:`CHANNELS`; "max" is what ``normalize_saliency`` of
            pytorch_attribution does, which gives NaN for a map without range.

    Returns:
        (B, 1, H, W) in 0..1, float32 or better.

    Raises:
        ValueError: another shape, an unknown rule, or values that are not finite.

    Example:
        >>> from torch import tensor
        >>> from imagexplain import normalize
        >>> normalize(tensor([[[[-3.0, 1.0, 2.0]]]]))
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    _check_maps(maps)
    if channels not in CHANNELS:
        raise ArgumentError("channels", f"wanted one of {', '.join(CHANNELS)}, got {channels!r}")
    if not maps.numel():
        return maps.new_zeros(len(maps), 1, *maps.shape[2:])
    values = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
    # The result does not depend on the scale; at most 1, values can neither overflow in a sum nor vanish in a mean.
    values = _divided(values, values.abs().amax((1, 2, 3), keepdim=True))
    values = CHANNELS[channels](values).relu()
    values = values - values.amin((2, 3), keepdim=True)
    return _divided(values, values.amax((2, 3), keepdim=True))


@dataclass(frozen=True)
class Localization:
    """Box and mask of the object in each map of a batch.

    Attributes:
        boxes: Boxes (B, 4), int64, x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros if nothing was found.
        masks: Masks (B, H, W), bool, of the component within the box.
    """

    boxes: Tensor
    masks: Tensor


def localize(maps: Tensor, *, threshold: float = 0.2) -> Localization:
    """Localise the object: box and mask of the largest connected part of each map above a fraction of its maximum.

    Pixels that touch at a corner are connected. Of components of equal size the first in reading order is taken.

    Args:
        maps: Maps (B, 1, H, W), finite; negative values count as 0.
        threshold: Fraction of the maximum, in [0, 1): pixels above threshold · maximum stay. 0.2 is the paper's.

    Raises:
        ValueError: another shape or threshold, or values that are not finite.

    Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", arXiv 1512.04150, section 3.2.

    Example:
        >>> from torch import zeros
        >>> from imagexplain import localize
        >>> maps = zeros(1, 1, 8, 8)
        >>> maps[0, 0, 2:5, 3:7] = 1
        >>> found = localize(maps)
        >>> found.boxes, found.masks.sum().item()
        (tensor([[3, 2, 7, 5]]), 12)
    """
    from scipy import ndimage  # takes half a second

    _check_maps(maps)
    if maps.shape[1] != 1:
        raise ArgumentError("maps", f"wanted (B, 1, H, W), got {tuple(maps.shape)}")
    if not 0 <= threshold < 1:
        raise ArgumentError("threshold", f"wanted a fraction in [0, 1), got {threshold}")
    values = maps.detach()[:, 0].double().cpu().numpy()
    boxes = np.zeros((len(values), 4), dtype=np.int64)
    masks = np.zeros(values.shape, dtype=bool)
    for value, box, mask in zip(values, boxes, masks, strict=True):
        peak = value.max(initial=0)
        labels, count = ndimage.label(value > threshold * peak, structure=np.ones((3, 3)))
        if peak > 0 and count:
            mask[:] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
            rows, columns = np.nonzero(mask)
            box[:] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return Localization(torch.from_numpy(boxes).to(maps.device), torch.from_numpy(masks).to(maps.device))


def iou(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of masks (B, H, W), bool, pair by pair: (B,) float64, 0 where both are empty.

    Raises:
        ValueError: not two batches of masks of equal shape.

    Example:
        >>> from torch import tensor
        >>> from imagexplain import iou
        >>> iou(tensor([[[True, True, False]]]), tensor([[[False, True, True]]]))  # one pixel of three
        tensor([0.3333], dtype=torch.float64)
    """
    for name, given in (("masks", masks), ("others", others)):
        if given.ndim != 3 or given.dtype != torch.bool:
            raise ArgumentError(name, f"wanted (B, H, W) bool, got {tuple(given.shape)} {given.dtype}")
    if masks.shape != others.shape:
        raise ArgumentError("others", f"wanted {tuple(masks.shape)} like masks, got {tuple(others.shape)}")
    common, union = ((pixels.sum((1, 2)).double()) for pixels in (masks & others, masks | others))
    return _divided(common, union)


def _divided(values: Tensor, by: Tensor) -> Tensor:
    """Values over a divisor that is 0 only where they are 0, too."""
    return values / torch.where(by > 0, by, 1)


def _check_maps(maps: Tensor) -> None:
    if maps.ndim != 4 or maps.is_complex():
        raise ArgumentError("maps", f"wanted (B, C, H, W) real numbers, got {tuple(maps.shape)} {maps.dtype}")
    if not maps.isfinite().all():
        raise ArgumentError("maps", "wanted finite values, got NaN or infinity")
