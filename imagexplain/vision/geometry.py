"""Geometry of a photo and a model's input: from the one to the other, and from a map back to the photo.

Pixel (r, c) covers the square [r, r + 1) × [c, c + 1): the geometry maps areas, so that a map that goes to the model's
frame and back stays where it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagexplain.errors import RequestError
from imagexplain.vision.preprocess_fields import Size
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.rectangles import Rectangles, of_mask

Kernel = Literal["bilinear", "bspline"]

MAX_ASPECT = 100

_PIECE = 2**16
"""Rectangles laid onto the model's grid at once; their sums stay below 2^53, up to which floating point is exact."""


@dataclass(frozen=True)
class Geometry:
    """Map that :func:`apply` used: resize the upright photo, then cut a box out.

    Attributes:
        photo: Height and width of the upright photo, pixels.
        resized: Height and width of the resized photo, pixels.
        box: Part of the resized photo that the model sees: (top, left, height, width), pixels. What of it lies beyond
            the resized photo is padding.
    """

    photo: Size
    resized: Size
    box: tuple[int, int, int, int]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the model's input that show the photo; the others are padding."""
        top, left, height, width = self.box
        return _inside(top, height, self.resized[0]), _inside(left, width, self.resized[1])

    @property
    def padded(self) -> bool:
        """Tell whether any of the model's input is padding."""
        return self.inside != (slice(0, self.box[2]), slice(0, self.box[3]))

    @property
    def view(self) -> tuple[float, float, float, float]:
        """Rectangle (left, top, right, bottom) that the model's input shows, photo pixels; beyond the photo where it
        is padded."""
        top, left, height, width = self.box
        down, across = (photo / resized for photo, resized in zip(self.photo, self.resized, strict=True))
        return left * across, top * down, (left + width) * across, (top + height) * down

    @property
    def pixels(self) -> tuple[Tensor, Tensor]:
        """Row and column of the model's input in which the centre of each row (photo height,) and column (photo width,)
        of the photo lies, int64, −1 for none."""
        top, left, height, width = self.box
        rows = _squares(self.photo[0], self.resized[0], top, height)
        return rows, _squares(self.photo[1], self.resized[1], left, width)

    def to_photo(self, values: Tensor, kernel: Kernel = "bilinear") -> Tensor:
        """Draw a map over the model's input at the photo's size.

        Args:
            values: Map (H, W) over the model's input; H × W need not be the input's own size.
            kernel: Kernel: ``bilinear`` goes through the values; ``bspline`` (cubic) smooths them and never overshoots.

        Returns:
            (photo height, photo width) float32 map; zero outside the crop.
        """
        if values.ndim != 2:
            raise ValueError(f"values: wanted a map of shape (H, W), got {tuple(values.shape)}")
        top, left, height, width = self.box
        rows = _interpolation(self.photo[0], self.resized[0], top, height, values.shape[0], kernel)
        columns = _interpolation(self.photo[1], self.resized[1], left, width, values.shape[1], kernel)
        return rows @ values.detach().to("cpu", torch.float32) @ columns.T

    def coverage(self, mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Part of each pixel of the model's input that a mask over the photo covers.

        Args:
            mask: Mask (h, w) over a part of the photo; nothing else of the photo is covered.
            corner: Place (top, left) of that part, photo pixels.

        Returns:
            (H, W) float64 in [0, 1] over the model's input: exact areas, not samples.
        """
        areas, (top, left) = self.areas(of_mask(mask, corner))
        covered = torch.zeros(self.box[2:], dtype=torch.float64)
        covered[top : top + areas.shape[0], left : left + areas.shape[1]] = torch.from_numpy(areas / self.pixel)
        return covered

    @property
    def pixel(self) -> int:
        """Area of one pixel of the model's input, in the units of :meth:`areas`."""
        return self.photo[0] * self.photo[1]

    def areas(self, mask: Rectangles) -> tuple[NDArray[np.int64], tuple[int, int]]:
        """Area of a mask over the photo within each pixel of the model's input, exactly.

        The edges of the photo's pixels and of the model's are multiples of 1 / ``resized`` photo pixels, so that all
        areas are whole numbers of such units: nothing is rounded, and what a mask does not touch has exactly none.

        Args:
            mask: Mask over the photo.

        Returns:
            (h, w) int64 in 1 / (resized height · resized width) photo pixels, of the part of the input that the mask
            reaches; and the place (top, left) of that part. It has no pixels where the mask lies outside the frame.
        """
        first_row, first_column, height, width = self.box
        sides = (
            _Side.of(mask.top, mask.bottom, self.photo[0], self.resized[0], first_row, height),
            _Side.of(mask.left, mask.right, self.photo[1], self.resized[1], first_column, width),
        )
        seen = sides[0].seen & sides[1].seen
        if not seen.any():
            return np.zeros((0, 0), dtype=np.int64), (0, 0)
        rows, columns = (side.where(seen) for side in sides)
        (top, tall), (left, broad) = rows.extent, columns.extent
        change = np.zeros((tall + 1) * (broad + 1), dtype=np.int64)
        for start in range(0, rows.cells.shape[1], _PIECE):
            piece = slice(start, start + _PIECE)
            row, row_weight = rows.cells[:, None, piece] - top, rows.weights[:, None, piece]
            column, column_weight = columns.cells[None, :, piece] - left, columns.weights[None, :, piece]
            place, weight = (row * (broad + 1) + column).ravel(), (row_weight * column_weight).ravel()
            change += np.bincount(place, weight, len(change)).astype(np.int64)
        areas = change.reshape(tall + 1, broad + 1)
        for axis in (1, 0):
            np.cumsum(areas, axis, out=areas)
        areas = areas[:tall, :broad]
        return areas, (top, left)

    def labels_to_photo(self, labels: Tensor, outside: int) -> Tensor:
        """Draw a label map (H, W) over the model's input at the photo's size: each pixel takes its square's label.

        Args:
            labels: Labels (H, W), int64.
            outside: Label of pixels that the model does not see.
        """
        rows, columns = self.pixels
        drawn = labels[rows.clamp(min=0)][:, columns.clamp(min=0)]
        return torch.where((rows < 0)[:, None] | (columns < 0), outside, drawn)


def fit(photo: Size, preprocess: Preprocess) -> Geometry:
    """Geometry of a photo of (height, width) pixels under ``preprocess``.

    Raises:
        RequestError: 422 where a crop would leave next to nothing of a very long photo.
    """
    height, width = preprocess.size
    if preprocess.fit == "stretch":
        return Geometry(photo, (height, width), (0, 0, height, width))
    resized = _resized(photo, preprocess)
    top, left = (_corner(*sides, preprocess) for sides in zip(resized, preprocess.size, strict=True))
    return Geometry(photo, resized, (top, left, height, width))


def _resized(photo: Size, preprocess: Preprocess) -> Size:
    """Height and width of the resized photo, of which the input is cut out."""
    if isinstance(preprocess.resize, tuple):
        return preprocess.resize
    limited = preprocess.fit == "pad" or preprocess.longer is not None
    if not limited and max(photo) > MAX_ASPECT * min(photo):  # resized to the crop's size, it would fill the memory
        wanted = f"this model crops: wanted a photo at most {MAX_ASPECT} times as long as it is wide"
        raise RequestError(422, "image", f"{wanted}, got {photo[1]} × {photo[0]}")
    if preprocess.resize is None and preprocess.longer is None:
        scaled = tuple(math.floor(side / preprocess.crop_fraction) for side in preprocess.size)
        wide = scaled[0] * photo[1] >= scaled[1] * photo[0]  # of a wide photo the height is the tighter side
        side = 0 if wide == (preprocess.fit == "crop") else 1
        return _with_side(photo, side, scaled[side], preprocess)
    shorter = 1 if photo[1] <= photo[0] else 0
    if preprocess.resize is None:
        assert preprocess.longer is not None
        return _with_side(photo, 1 - shorter, preprocess.longer, preprocess)
    resized = _with_side(photo, shorter, preprocess.resize, preprocess)
    if preprocess.longer is not None and max(resized) > preprocess.longer:
        resized = _with_side(resized, 1 - shorter, preprocess.longer, preprocess)
    return resized


def _with_side(photo: Size, side: int, length: int, preprocess: Preprocess) -> Size:
    """Size of a photo with one side of a certain length, its proportions kept as well as whole pixels allow."""
    other = photo[1 - side]
    if preprocess.resize_rounding == "round":
        other = round(other / (photo[side] / length))  # in timm's order of operations
    else:
        other = int(length * other / photo[side])
    sizes = (length, max(1, other))
    return sizes if side == 0 else sizes[::-1]


def _corner(resized: int, length: int, preprocess: Preprocess) -> int:
    """Start of the box on one side of the resized photo; below 0 where that is padded."""
    spare = resized - length
    if spare >= 0:
        return spare // 2 if preprocess.crop_offset == "floor" else round(spare / 2)
    if preprocess.pad_position == "top_left":
        return 0
    return -((1 - spare) // 2 if preprocess.pad_extra == "before" else -spare // 2)


def _interpolation(photo: int, resized: int, start: int, length: int, samples: int, kernel: Kernel) -> Tensor:
    """Matrix (photo, samples) that draws ``samples`` values over one side of the box on ``photo`` pixels.

    Rows sum to 1 inside the box and are zero outside it. Where the photo is the coarser of the two, the kernel widens,
    so that no value is skipped.
    """
    centre = (torch.arange(photo, dtype=torch.float64) + 0.5) * (resized / photo) - start
    position = centre * (samples / length)
    widening = max(1.0, samples * resized / (photo * length))
    distance = (position[:, None] - (torch.arange(samples, dtype=torch.float64) + 0.5)).abs() / widening
    weights = _KERNELS[kernel](distance)
    shown = _inside(start, length, resized)
    if shown != slice(0, length):  # values of padding alone say nothing of the photo's rim
        edges = torch.arange(samples + 1, dtype=torch.float64) * (length / samples)
        weights = weights * ((edges[1:] > shown.start) & (edges[:-1] < shown.stop))
    # At the rim the kernel hangs over the edge: what lies inside is scaled up to a sum of 1.
    weights /= weights.sum(dim=1, keepdim=True).clamp_min(1e-12)
    inside = _squares(photo, resized, start, length) >= 0
    return (weights * inside[:, None]).to(torch.float32)


@dataclass(frozen=True, eq=False)
class _Side:
    """Intervals [start, stop) of photo pixels on one side of the model's input.

    The length of an interval within each cell is the running sum of four changes: from a start on the length rises, in
    the cell that it lies in by what is left of that cell and in the next by the rest; from a stop on it falls so.

    Attributes:
        cells: Cells (4, N), int64, of the changes.
        weights: Changes (4, N), int64, in 1 / resized of a photo pixel; a cell has as many as the photo has pixels.
        seen: Visibility (N,), bool: True where any part of the interval lies in the frame.
    """

    cells: NDArray[np.int64]
    weights: NDArray[np.int64]
    seen: NDArray[np.bool_]

    @classmethod
    def of(
        cls, start: NDArray[np.int64], stop: NDArray[np.int64], photo: int, resized: int, first: int, length: int
    ) -> _Side:
        begin, end = ((edge * resized - first * photo).clip(0, length * photo) for edge in (start, stop))
        first_cell, last_cell = begin // photo, (end - 1) // photo
        rise, fall = (first_cell + 1) * photo - begin, end - (last_cell + 1) * photo
        cells = np.stack([first_cell, first_cell + 1, last_cell, last_cell + 1])
        return cls(cells, np.stack([rise, photo - rise, fall, -photo - fall]), end > begin)

    def where(self, chosen: NDArray[np.bool_]) -> _Side:
        """Select some of the intervals."""
        return _Side(self.cells[:, chosen], self.weights[:, chosen], self.seen[chosen])

    @property
    def extent(self) -> tuple[int, int]:
        """Extent of the intervals: the first cell that they reach, and the number of cells from it to the last."""
        first = int(self.cells[0].min())
        return first, int(self.cells[2].max()) + 1 - first


def _inside(start: int, length: int, resized: int) -> slice:
    """Pixels of one side of the box that lie on the resized photo."""
    return slice(max(-start, 0), min(length, resized - start))


def _squares(photo: int, resized: int, start: int, length: int) -> Tensor:
    """Pixel of the box in which the centre of each photo pixel lies, (photo,) int64, −1 for none."""
    position = (2 * torch.arange(photo) + 1) * resized // (2 * photo) - start  # in whole numbers, hence exact
    return torch.where((position >= 0) & (position < length), position, -1)


def _hat(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_min(0)


def _bspline(distance: Tensor) -> Tensor:
    """Cubic B-spline, by distance in samples; the sum of two clipped cubes."""
    return ((2 - distance).clamp_min(0) ** 3 - 4 * (1 - distance).clamp_min(0) ** 3) / 6


_KERNELS = {"bilinear": _hat, "bspline": _bspline}
