"""Run-length masks of COCO: runs of zeros and ones in turn, zeros first, down the columns.

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

from imagexplain.errors import RequestError, shown
from imagexplain.vision.rectangles import Rectangles

_MAX_DIGITS = 7  # digits of a 32-bit number
_MOST_PIXELS = 2**31
"""Bound above a mask's pixels and its runs, none longer than the mask: their sum is below 2^62 and cannot wrap."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Mask in runs.

    Attributes:
        size: Height and width of the mask.
        counts: Lengths of the runs of zeros and ones in turn, int64, zeros first; they sum to height × width.
    """

    size: tuple[int, int]
    counts: NDArray[np.int64]

    def cut_out(self) -> tuple[NDArray[np.bool_], int]:
        """Columns that the ones lie in, (height, columns) bool, and the first of them."""
        height = self.size[0]
        starts, stops = self.edges
        if len(starts) == 0:
            return np.zeros((height, 0), dtype=np.bool_), 0
        first, last = int(starts[0] // height), int((stops[-1] - 1) // height)
        change = np.zeros((last - first + 1) * height + 1, dtype=np.int8)
        offset = first * height
        np.add.at(change, starts - offset, 1)
        np.add.at(change, stops - offset, -1)
        filled = np.cumsum(change[:-1], dtype=np.int8).astype(np.bool_)
        return filled.reshape(-1, height).T, first

    @property
    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the ones' runs down the columns: of the first pixel of each, and of the one after its last."""
        ends = np.cumsum(self.counts)
        starts, stops = ends[:-1:2], ends[1::2]
        full = stops > starts
        return starts[full], stops[full]

    def rectangles(self) -> Rectangles:
        """Rectangles of the ones: a run that goes on in further columns is parted where it meets them."""
        height = self.size[0]
        starts, stops = self.edges
        first, last = starts // height, (stops - 1) // height
        top, bottom = starts - first * height, stops - last * height
        none, all_rows = np.zeros_like(top), np.full_like(top, height)
        head = (top, np.where(first == last, bottom, height), first, first + 1)
        body = (none, all_rows, first + 1, last)  # whole columns, none where the next is the last
        tail = (none, bottom, np.maximum(last, first + 1), last + 1)
        return Rectangles(*map(np.concatenate, zip(head, body, tail, strict=True))).without_empty()

    def mask(self) -> NDArray[np.bool_]:
        """Mask (height, width), bool."""
        columns, first = self.cut_out()
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[:, first : first + columns.shape[1]] = columns
        return mask


def read(
    value: Mapping[str, Any], field: str = "masks", *, photo: tuple[int, int] | None = None, most: int = _MOST_PIXELS
) -> Runs:
    """Read the runs of ``{"size": [height, width], "counts": text or list}``.

    Args:
        value: Mask as COCO has it.
        field: Field of the request, for errors.
        photo: Height and width that the mask must have; any, if not given.
        most: Largest number of runs.

    Raises:
        RequestError: 400, whatever is wrong with it; 413 for more runs; 422 for another size than the photo's. All of
            it before anything is added up or takes memory, but for what is as long as the counts themselves.
    """
    size = value.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise RequestError(400, field, f"wanted size as [height, width] of a run-length mask, got {shown(size)}")
    height, width = size
    if photo is not None and (height, width) != tuple(photo):
        wanted = f"wanted masks of the upright photo's {photo[0]} rows and {photo[1]} columns"
        raise RequestError(422, field, f"{wanted}, got {shown(height)} and {shown(width)}")
    if height * width >= _MOST_PIXELS:
        raise RequestError(400, field, f"wanted a mask of fewer than 2^31 pixels, got {shown(height)} × {shown(width)}")
    counts, area = value.get("counts"), height * width
    if isinstance(counts, str | bytes):
        digits, last = _digits(counts, field)
        _check_number(int(np.count_nonzero(last)), area, most, field)
        runs = _unpacked(digits, last, field)
    elif isinstance(counts, list):
        _check_number(len(counts), area, most, field)
        runs = _listed(counts, field)
    else:
        raise RequestError(400, field, f"wanted counts as text or as a list of run lengths, got {shown(counts)}")
    if runs.size and runs.min() < 0:
        raise RequestError(400, field, f"wanted run lengths from 0, got {runs.min()}")
    wanted = f"wanted run lengths that sum to {height} × {width} = {area}"
    if (longest := int(runs.max(initial=0))) > area:  # before the sum, which differences can take beyond 64 bits
        raise RequestError(400, field, f"{wanted}, got {longest} in one of them")
    total = int(runs.sum())
    if total != area:
        raise RequestError(400, field, f"{wanted}, got {total}")
    return Runs((height, width), runs)


def write(
    mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Write a mask as ``{"size", "counts"}``, the counts as text.

    Args:
        mask: Mask (h, w), bool.
        corner: Place (top, left) of it in the photo, in which all else is 0.
        size: Height and width of the photo; default: the mask's own.
    """
    height, width = size or mask.shape
    column, start, stop = column_runs(mask)
    place = (corner[1] + column) * height + corner[0]
    return write_runs(place + start, place + stop, (height, width))


def column_runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Runs of ones down the columns of a mask (h, w): column, first row and the row after the last of each, (N,)."""
    # A row of zeros above and below parts each column from the next.
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), dtype=np.bool_)
    columns[:, 1:-1] = mask.T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), mask.shape[0] + 2)
    return column[::2], row[::2], row[1::2]


def count_column_runs(mask: NDArray[np.bool_]) -> int:
    """Number of runs of ones down the columns of a mask (h, w)."""
    inside = np.count_nonzero(mask[1:] & ~mask[:-1])
    return int(inside + np.count_nonzero(mask[:1]))


def write_runs(starts: NDArray[np.int64], stops: NDArray[np.int64], size: tuple[int, int]) -> dict[str, Any]:
    """Write the mask of runs of ones, in order, as :func:`write` does.

    Args:
        starts, stops: Places (N,) of their first pixel and of the one after their last, down the columns.
        size: Height and width of the photo.
    """
    height, width = size
    # Where a mask is as high as the photo, a run goes on in the next column.
    joints = np.flatnonzero(starts[1:] == stops[:-1])
    edges = np.stack([np.delete(starts, joints + 1), np.delete(stops, joints)], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return {"size": [height, width], "counts": _packed(counts if counts[-1] else counts[:-1])}


def _check_number(runs: int, area: int, most: int, field: str) -> None:
    if runs > most:
        raise RequestError(413, field, f"wanted run-length masks of at most {most:,} runs, got {runs:,}")
    if runs > area + 1:  # zeros first, then each pixel a run of its own
        raise RequestError(400, field, f"wanted at most {area + 1} runs of a mask of {area} pixels, got {runs}")


def _listed(counts: list[Any], field: str) -> NDArray[np.int64]:
    for count in counts:
        if type(count) is not int or not 0 <= count < _MOST_PIXELS:
            raise RequestError(400, field, f"wanted run lengths, whole numbers from 0, got {shown(count)}")
    return np.array(counts, dtype=np.int64)


def _digits(text: str | bytes, field: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Digits of packed counts, 5 bits each, with their marks, and where a number ends."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise RequestError(400, field, f"wanted counts in ASCII, got {shown(text)}") from None
    digits = np.frombuffer(raw, dtype=np.uint8) - np.uint8(48)  # below 48 it wraps, to far more than 63
    if digits.size and digits.max() > 63:
        bad = raw[int(np.argmax(digits > 63))]
        raise RequestError(400, field, f"wanted counts of the characters 0 to o, got {shown(chr(bad))}")
    last = (digits & 32) == 0
    if digits.size and not last[-1]:
        raise RequestError(400, field, "wanted counts that end with a whole number, got one that is cut off")
    return digits, last


def _unpacked(digits: NDArray[np.uint8], last: NDArray[np.bool_], field: str) -> NDArray[np.int64]:
    """Unpack numbers: little-endian digits of 5 bits, offset by 48; 32 marks that more follow, 16 of the last the sign.

    From the fourth number on, each is the difference to the number two before it.
    """
    ends = np.flatnonzero(last)
    if ends.size == 0:
        return ends
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_DIGITS:
        raise RequestError(400, field, f"wanted numbers of at most {_MAX_DIGITS} digits in counts, got {lengths.max()}")
    place = np.arange(digits.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31).astype(np.int64) << (5 * place), starts)
    numbers -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    if np.abs(numbers).max() >= _MOST_PIXELS:
        raise RequestError(400, field, f"wanted run lengths below 2^31, got {numbers[np.abs(numbers).argmax()]}")
    for first in (1, 2):  # the odd numbers from the second on, the even ones from the third on
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _packed(counts: NDArray[np.int64]) -> str:
    """Pack numbers, see :func:`_unpacked`."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    text = np.zeros((len(numbers), _MAX_DIGITS), dtype=np.uint8)
    left = np.arange(len(numbers))
    for place in range(_MAX_DIGITS):
        digits = numbers & 31
        numbers = numbers >> 5
        more = numbers != np.where(digits & 16, -1, 0)
        text[left, place] = 48 + np.where(more, digits | 32, digits)
        left, numbers = left[more], numbers[more]
        if len(left) == 0:
            break
    return text[text != 0].tobytes().decode("ascii")
