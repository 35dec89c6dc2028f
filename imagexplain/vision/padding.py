"""Cut of a model's input out of the resized photo, and the padding where the photo ends."""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.resampling import divided, fractions


def padded(pixels: Tensor, box: tuple[int, int, int, int], preprocess: Preprocess) -> Tensor:
    """Cut a box out of a resized photo; beyond the photo's edges it is padded.

    Args:
        pixels: Pixels (C, h, w) of the resized photo, uint8, or floating point in 0..1.
        box: Box (top, left, height, width), pixels of the resized photo; it may reach beyond it on any side.
        preprocess: Content of the padding.

    Returns:
        (C, height, width) float32 in 0..1, contiguous, and the caller's to change.
    """
    top, left, height, width = box
    count, rows, columns = pixels.shape
    inside = top >= 0 and left >= 0 and top + height <= rows and left + width <= columns
    if inside:
        return fractions(pixels[:, top : top + height, left : left + width], preprocess)
    if preprocess.pad_mode != "constant":
        mirrored = preprocess.pad_mode == "reflect"
        down, across = (_source(*side, mirrored) for side in ((top, height, rows), (left, width, columns)))
        return fractions(pixels[:, down][:, :, across], preprocess)
    first, start = max(top, 0), max(left, 0)
    part = pixels[:, first : max(top + height, 0), start : max(left + width, 0)]
    value = divided(torch.tensor(preprocess.pad_value, dtype=torch.float32), preprocess).reshape(-1, 1, 1)
    whole = value.repeat(count // len(value), height, width)
    whole[:, first - top :, start - left :][:, : part.shape[1], : part.shape[2]] = fractions(part, preprocess)
    return whole


def repadded(part: Tensor, padded: Tensor, inside: tuple[slice, slice], preprocess: Preprocess) -> Tensor:
    """Pad a part of an input as another input is padded.

    Args:
        part: Part (..., C, h, w) that shows the photo.
        padded: Input (C, H, W) whose padding, if it is constant, is taken over.
        inside: Rows and columns of the input that show the photo.
        preprocess: Content of the padding.

    Returns:
        (..., C, H, W).
    """
    rows, columns = inside
    if preprocess.pad_mode == "constant":
        whole = padded.expand(*part.shape[:-2], *padded.shape[-2:]).clone()
        whole[..., rows, columns] = part
        return whole
    mirrored = preprocess.pad_mode == "reflect"
    down = _source(-rows.start, padded.shape[-2], part.shape[-2], mirrored)
    across = _source(-columns.start, padded.shape[-1], part.shape[-1], mirrored)
    return part[..., down, :][..., across]


def _source(start: int, length: int, side: int, mirrored: bool) -> Tensor:
    """Pixel of a side of the photo that each pixel of a box shows, (length,) int64."""
    place = torch.arange(start, start + length)
    if not mirrored or side == 1:
        return place.clamp(0, side - 1)
    place = place % (2 * side - 2)  # to and fro, the edges once
    return torch.where(place < side, place, 2 * side - 2 - place)
