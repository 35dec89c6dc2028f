"""Mask as rectangles of whole pixels: it costs what its edges do, not what its area does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagexplain.vision.mask_crops import CroppedMask

Integers = NDArray[np.int64]

_BAND = 2**22
"""Pixels whose rows are looked at together, so that a patchy mask takes no more memory than its runs."""


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Rectangles that do not overlap; each of the four is (N,) int64, in pixels of the photo.

    Attributes:
        top, bottom: First row, and the one after the last.
        left, right: First column, and the one after the last.
    """

    top: Integers
    bottom: Integers
    left: Integers
    right: Integers

    def __len__(self) -> int:
        return len(self.top)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(((self.bottom - self.top) * (self.right - self.left)).sum())

    @property
    def extent(self) -> int:
        """Number of pixels of the rectangle around them all."""
        if len(self) == 0:
            return 0
        return int((self.bottom.max() - self.top.min()) * (self.right.max() - self.left.min()))

    def where(self, chosen: NDArray[Any]) -> Rectangles:
        """Select some of them, by index or by a bool for each."""
        return Rectangles(self.top[chosen], self.bottom[chosen], self.left[chosen], self.right[chosen])

    def without_empty(self) -> Rectangles:
        """Rectangles without those that hold no pixel."""
        return self.where((self.bottom > self.top) & (self.right > self.left))

    def cut_out(self) -> CroppedMask:
        """Draw the mask."""
        if len(self) == 0:
            return CroppedMask(np.zeros((0, 0), dtype=np.bool_), (0, 0))
        top, left = int(self.top.min()), int(self.left.min())
        change = np.zeros((int(self.bottom.max()) - top + 1, int(self.right.max()) - left + 1), dtype=np.int8)
        for rows, step in ((self.top - top, 1), (self.bottom - top, -1)):
            np.add.at(change, (rows, self.left - left), step)
            np.add.at(change, (rows, self.right - left), -step)
        drawn = change.cumsum(0, dtype=np.int8).cumsum(1, dtype=np.int8)[:-1, :-1]
        return CroppedMask(drawn.astype(np.bool_), (top, left))


def of_mask(mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> Rectangles:
    """Runs of a mask (h, w), along its rows; ``corner`` is its place (top, left) in the photo."""
    strips, _ = of_labels(mask.view(np.uint8), corner)
    return strips


def of_labels(
    labels: NDArray[np.integer], corner: tuple[int, int] = (0, 0), most: int | None = None
) -> tuple[Rectangles, Integers]:
    """Runs of equal labels other than 0 of (h, w), along its rows, and the label of each.

    Args:
        labels: Labels (h, w), from 0.
        corner: Place (top, left) in the photo.
        most: Number of runs at which to stop; what is returned then has more.
    """
    height, width = labels.shape
    found: list[tuple[Integers, Integers, Integers, Integers]] = []
    number = 0
    rows = max(1, _BAND // max(width, 1))
    for top in range(0, height if width else 0, rows):
        band = np.ascontiguousarray(labels[top : top + rows])
        begins = np.ones(band.shape, dtype=np.bool_)
        np.not_equal(band[:, 1:], band[:, :-1], out=begins[:, 1:])
        starts = np.flatnonzero(begins)
        stops = np.append(starts[1:], band.size)
        values = band.ravel()[starts]
        kept = values != 0
        row, left = np.divmod(starts[kept], width)
        found.append((row + top, left, left + (stops - starts)[kept], values[kept].astype(np.int64)))
        number += len(row)
        if most is not None and number > most:
            break
    row, left, right, values = (
        map(np.concatenate, zip(*found, strict=True)) if found else (np.zeros(0, dtype=np.int64),) * 4
    )
    return Rectangles(row + corner[0], row + corner[0] + 1, left + corner[1], right + corner[1]), values
