"""Pasting: a mask on the grid of a box becomes a mask of the photo's size.

Pixel (y, x) of the photo is set where the box's mask, interpolated bilinearly at the pixel's centre and 0 outside the
box, reaches the threshold. Numbers agree with ``paste_masks_in_image`` of detectron2
(https://github.com/facebookresearch/detectron2, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor

import torch
from torch import Tensor

from imagexplain.vision.mask_crops import CroppedMask, check_room

THRESHOLD = 0.5


def paste_masks(masks: Iterable[Tensor], boxes: Tensor, size: tuple[int, int]) -> tuple[CroppedMask, ...]:
    """Paste masks into the photo, each as the binary part of it that its box covers.

    Args:
        masks: Masks (h, w), one per box, in [0, 1]; the sizes may differ.
        boxes: Boxes (N, 4), x0, y0, x1, y1 in pixels of the photo; they may reach beyond it.
        size: Height and width of the photo.

    Raises:
        MasksTooLargeError: the boxes are of more pixels than may be kept; none is pasted.
    """
    windows = [_window(corners, size) for corners in boxes.tolist()]
    check_room(sum((bottom - top) * (right - left) for top, left, bottom, right in windows))
    pasted = []
    for mask, box, (top, left, bottom, right) in zip(masks, boxes, windows, strict=True):
        rows = _weights(top, bottom, box[1], box[3], mask.shape[0])
        columns = _weights(left, right, box[0], box[2], mask.shape[1])
        part = rows @ mask @ columns.T >= THRESHOLD
        pasted.append(CroppedMask(part.cpu().numpy(), (top, left)))
    return tuple(pasted)


def _window(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the part of a photo (height, width) that a box x0, y0, x1, y1 covers."""
    (x0, y0, x1, y1), (height, width) = box, size
    top, left = min(max(floor(y0), 0), height), min(max(floor(x0), 0), width)
    return top, left, max(min(ceil(y1), height), top), max(min(ceil(x1), width), left)


def _weights(start: int, stop: int, low: Tensor, high: Tensor, size: int) -> Tensor:
    """Weights (pixel, mask pixel) of linear interpolation along an axis, for pixels ``start`` to before ``stop``."""
    centres = torch.arange(start, stop, device=low.device, dtype=low.dtype) + 0.5
    positions = (centres - low) / (high - low) * size - 0.5
    return (1 - (positions[:, None] - torch.arange(size, device=low.device)).abs()).clamp(min=0)
