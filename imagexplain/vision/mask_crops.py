"""Mask as the part of its photo that holds it: a small object stays small, however large the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 2**30
"""Largest number of pixels of all masks of one photo together, a byte each: 22 that fill a photo of 48 megapixels."""


class MasksTooLargeError(ValueError):
    """Masks that would take more than their share of memory."""


def check_room(pixels: float) -> None:
    """Refuse masks of so many pixels in all, before they are made.

    Raises:
        MasksTooLargeError: there are more than :data:`MOST_PIXELS`.
    """
    if pixels > MOST_PIXELS:
        raise MasksTooLargeError(f"wanted masks of at most {MOST_PIXELS:,} pixels in all, got {pixels:,.0f}")


@dataclass(frozen=True, eq=False)
class CroppedMask:
    """Part of the photo that holds all of a mask.

    Attributes:
        mask: Mask (h, w), bool.
        corner: Place (top, left) of it in the photo.
    """

    mask: NDArray[np.bool_]
    corner: tuple[int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the photo that it covers."""
        (top, left), (height, width) = self.corner, self.mask.shape
        return slice(top, top + height), slice(left, left + width)

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.mask))


def crop_to_content(mask: NDArray[np.bool_]) -> CroppedMask:
    """Cut a mask (H, W) out as small as possible; the cut-out of an empty one has no pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return CroppedMask(np.zeros((0, 0), dtype=np.bool_), (0, 0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CroppedMask(part.copy(), (int(rows[0]), int(columns[0])))  # not a view, which would keep the whole


def stack_full_masks(cut_outs: Sequence[CroppedMask], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks (N, H, W) over a photo of that height and width. Pages without a mask take no memory."""
    masks = np.zeros((len(cut_outs), *size), dtype=np.bool_)
    for mask, cut_out in zip(masks, cut_outs, strict=True):
        mask[cut_out.window] = cut_out.mask
    return masks
