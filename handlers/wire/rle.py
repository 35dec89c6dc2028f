"""COCO's run-length masks: runs of zeros and ones in turn, zeros first, down the columns.

Two forms are in use, both as pycocotools writes them: ``counts`` as a list of run lengths, or as text that packs them
into 5-bit digits. The decoder is our own for two reasons: it says what is wrong with a mask, where pycocotools says
that it is invalid, and it cuts out the columns that hold the ones, so that a small mask of a large photo stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.wire.errors import RequestError, shown

_LONGEST = 7  # digits of a 32-bit number
_MOST_PIXELS = 2**31


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask in runs.

    Attributes:
        size: (height, width) of the mask.
        counts: int64 lengths of the runs of zeros and ones in turn, zeros first; they sum to height × width.
    """

    size: tuple[int, int]
    counts: NDArray[np.int64]

    def cut_out(self) -> tuple[NDArray[np.bool_], int]:
        """The columns that the ones lie in, (height, columns) bool, and the first of them."""
        height = self.size[0]
        ends = np.cumsum(self.counts)
        starts, stops = ends[:-1:2], ends[1::2]
        full = stops > starts
        starts, stops = starts[full], stops[full]
        if len(starts) == 0:
            return np.zeros((height, 0), dtype=np.bool_), 0
        first, last = int(starts[0] // height), int((stops[-1] - 1) // height)
        change = np.zeros((last - first + 1) * height + 1, dtype=np.int8)
        offset = first * height
        np.add.at(change, starts - offset, 1)
        np.add.at(change, stops - offset, -1)
        filled = np.cumsum(change[:-1], dtype=np.int8).astype(np.bool_)
        return filled.reshape(-1, height).T, first

    def mask(self) -> NDArray[np.bool_]:
        """(height, width) bool."""
        columns, first = self.cut_out()
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[:, first : first + columns.shape[1]] = columns
        return mask


def read(value: Mapping[str, Any], field: str = "masks") -> Runs:
    """The runs of ``{"size": [height, width], "counts": text or list}``.

    Raises:
        RequestError: 400, whatever is wrong with it.
    """
    size = value.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise RequestError(400, field, f"wanted size as [height, width] of a run-length mask, got {shown(size)}")
    height, width = size
    if height * width >= _MOST_PIXELS:
        raise RequestError(400, field, f"wanted a mask of fewer than 2^31 pixels, got {height} × {width}")
    counts = value.get("counts")
    if isinstance(counts, str | bytes):
        runs = _unpacked(counts, field)
    elif isinstance(counts, list):
        runs = _listed(counts, field)
    else:
        raise RequestError(400, field, f"wanted counts as text or as a list of run lengths, got {shown(counts)}")
    if runs.size and runs.min() < 0:
        raise RequestError(400, field, f"wanted run lengths from 0, got {runs.min()}")
    total = int(runs.sum())
    if total != height * width:
        raise RequestError(400, field, f"wanted runs that sum to {height} × {width} = {height * width}, got {total}")
    return Runs((height, width), runs)


def write(
    mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """``{"size", "counts"}`` of a mask, the counts as text.

    Args:
        mask: (h, w) bool.
        corner: its place (top, left) in the photo, in which all else is 0.
        size: height and width of the photo; default: the mask's own.
    """
    height, width = size or mask.shape
    top, left = corner
    # A row of zeros above and below parts each column from the next.
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), dtype=np.bool_)
    columns[:, 1:-1] = mask.T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), mask.shape[0] + 2)
    starts, stops = ((left + column) * height + top + row).reshape(-1, 2).T
    # Where the mask is as high as the photo, a run goes on in the next column.
    joints = np.flatnonzero(starts[1:] == stops[:-1])
    edges = np.stack([np.delete(starts, joints + 1), np.delete(stops, joints)], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return {"size": [height, width], "counts": _packed(counts if counts[-1] else counts[:-1])}


def _listed(counts: list[Any], field: str) -> NDArray[np.int64]:
    wrong = next((count for count in counts if type(count) is not int or not 0 <= count < _MOST_PIXELS), None)
    if wrong is not None:
        raise RequestError(400, field, f"wanted run lengths, whole numbers from 0, got {shown(wrong)}")
    return np.array(counts, dtype=np.int64)


def _unpacked(text: str | bytes, field: str) -> NDArray[np.int64]:
    """Each number is little-endian digits of 5 bits, offset by 48; 32 marks that more follow, 16 of the last the sign.

    From the fourth number on, each is the difference to the number two before it.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise RequestError(400, field, f"wanted counts in ASCII, got {shown(text)}") from None
    digits = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if digits.size == 0:
        return digits
    if digits.min() < 0 or digits.max() > 63:
        bad = raw[int(np.argmax((digits < 0) | (digits > 63)))]
        raise RequestError(400, field, f"wanted counts of the characters 0 to o, got {shown(chr(bad))}")
    last = (digits & 32) == 0
    if not last[-1]:
        raise RequestError(400, field, "wanted counts that end with a whole number, got one that is cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise RequestError(400, field, f"wanted numbers of at most {_LONGEST} digits in counts, got {lengths.max()}")
    place = np.arange(digits.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * place), starts)
    numbers -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):  # the odd numbers from the second on, the even ones from the third on
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _packed(counts: NDArray[np.int64]) -> str:
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    text = bytearray()
    for number in numbers.tolist():
        more = True
        while more:
            digit = number & 31
            number >>= 5
            more = number != (-1 if digit & 16 else 0)
            text.append(48 + (digit | 32 if more else digit))
    return text.decode("ascii")
