"""Groups of pixels over the photo: as run-length masks, and as one map of labels.

A mask that was sent, or that a segmenter found, is itself; what was made in the model's frame is drawn by the squares
of the model's pixels. Runs are made without drawing a mask at the photo's size wherever its form allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagexplain.errors import RequestError
from imagexplain.vision import rle
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.mask_crops import CroppedMask, crop_to_content
from imagexplain.vision.masks import Shape, drawn
from imagexplain.vision.rectangles import Rectangles

Edges = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Runs of ones down the columns of a photo: places of the first pixel of each, and of the one after its last."""

OUTSIDE = -1
"""Label of pixels that the model does not see."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One side of the photo, cut into the pixels of the model's input that show it.

    Attributes:
        cells: Pixels (n,) of the model's input in which any pixel of the photo has its centre.
        counts: Number (n,) of the photo's pixels in each.
        first: First pixel of the photo that the model sees.
    """

    cells: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: int

    @classmethod
    def of(cls, pixels: Tensor) -> _Side:
        """The side of a photo whose pixels lie in these of the model's input, see :attr:`Geometry.pixels`."""
        seen = pixels.numpy()
        inside = np.flatnonzero(seen >= 0)
        cells, counts = np.unique(seen[inside], return_counts=True)
        return cls(cells, counts, int(inside[0]) if len(inside) else 0)

    @property
    def edges(self) -> NDArray[np.int64]:
        """Pixels (n + 1,) of the photo at which the cells begin, and the one after the last."""
        return self.first + np.concatenate([[0], np.cumsum(self.counts)])


@dataclass(frozen=True, eq=False)
class Grid:
    """The pixels of the model's input as they lie on the photo."""

    rows: _Side
    columns: _Side
    height: int

    @classmethod
    def of(cls, geometry: Geometry) -> Grid:
        """The grid of a photo's geometry."""
        rows, columns = geometry.pixels
        return cls(_Side.of(rows), _Side.of(columns), geometry.photo[0])

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the photo that the model sees."""
        (top, bottom), (left, right) = (side.edges[[0, -1]].tolist() for side in (self.rows, self.columns))
        return slice(top, bottom), slice(left, right)

    @property
    def view(self) -> Rectangles:
        """The same part of the photo as a rectangle, or none."""
        ends = [np.array([end]) for side in self.window for end in (side.start, side.stop)]
        return Rectangles(*ends).without_empty()

    def shown(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Part (n, m) of a mask over the model's input of which the photo has any pixel."""
        return mask[np.ix_(self.rows.cells, self.columns.cells)]

    def area(self, mask: NDArray[np.bool_]) -> int:
        """Pixels of the photo in a mask over the model's input."""
        return int(self.rows.counts @ self.shown(mask).astype(np.int64) @ self.columns.counts)

    def count_runs(self, mask: NDArray[np.bool_]) -> int:
        """Number of runs down the photo's columns of a mask over the model's input."""
        shown = self.shown(mask)
        starts = shown & ~np.pad(shown, ((1, 0), (0, 0)))[:-1]
        return int(starts.sum(axis=0) @ self.columns.counts)

    def edges(self, mask: NDArray[np.bool_]) -> Edges:
        """Runs over the photo of a mask over the model's input."""
        column, start, stop = rle.column_runs(self.shown(mask))
        runs = np.bincount(column, minlength=len(self.columns.cells))  # of each column of cells
        cells = np.repeat(np.arange(len(runs)), self.columns.counts)  # of each column of the photo
        of_column = runs[cells]
        before = np.cumsum(of_column) - of_column
        place = np.repeat((np.cumsum(runs) - runs)[cells] - before, of_column) + np.arange(of_column.sum())
        top = np.repeat((self.columns.first + np.arange(len(cells))) * self.height, of_column)
        edges = self.rows.edges
        return top + edges[start[place]], top + edges[stop[place]]

    def extent(self, mask: NDArray[np.bool_]) -> int:
        """Pixels of the rectangle of the photo around a mask over the model's input."""
        (down, across), _ = self._around(mask)
        return int(self.rows.counts[down].sum() * self.columns.counts[across].sum())

    def cut_out(self, mask: NDArray[np.bool_]) -> CroppedMask:
        """Draw a mask over the model's input on the photo."""
        (down, across), shown = self._around(mask)
        drawn = shown.repeat(self.columns.counts[across], axis=1).repeat(self.rows.counts[down], axis=0)
        return CroppedMask(drawn, (int(self.rows.edges[down.start]), int(self.columns.edges[across.start])))

    def _around(self, mask: NDArray[np.bool_]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """Rows and columns of cells around a mask over the model's input, and the mask within them."""
        small = crop_to_content(self.shown(mask))
        return small.window, small.mask


@dataclass(frozen=True, eq=False)
class PhotoGroups:
    """The groups of a request over its photo; what is made of them is made once, when it is first wanted.

    Attributes:
        geometry: Map from the photo to the model's input.
        masks: Masks (G, H, W), bool, over the model's input.
        kinds: Kind of each: segment, rest or whole.
        shapes: Masks over the photo, of those that were sent or found on it; None for the others.
        max_runs: Number of runs of all groups above which none are written.
    """

    geometry: Geometry
    masks: Tensor
    kinds: Sequence[str]
    shapes: Sequence[Shape | None]
    max_runs: int

    @cached_property
    def grid(self) -> Grid:
        """The model's pixels on the photo."""
        return Grid.of(self.geometry)

    @cached_property
    def runs(self) -> int:
        """Number of runs of all segments, as far as it is known without drawing one."""
        return sum(self._runs(index) for index in self._segments)

    @cached_property
    def drawn_pixels(self) -> int:
        """Pixels of the rectangles around all segments, within which they are drawn."""
        return sum(self._extent(index) for index in self._segments)

    @cached_property
    def written_pixels(self) -> int:
        """Pixels of the rectangles around the segments that are drawn before their runs are written."""
        return sum(self._extent(index) for index in self._segments if self._is_drawn(index))

    @cached_property
    def segmentations(self) -> list[dict[str, Any] | None]:
        """Run-length masks of COCO over the photo, (G,); None for the whole.

        Raises:
            RequestError: 413 for more runs than there may be.
        """
        edges: dict[int, Edges] = {}
        left = self.max_runs
        for index in self._segments:
            edges[index] = self._edges(index, left)
            left -= len(edges[index][0])
        rest = [index for index, kind in enumerate(self.kinds) if kind == "rest"]
        if rest:
            edges[rest[0]] = _beside(_of_rectangles(self.grid.view, self.geometry.photo[0]), list(edges.values()))
        size = self.geometry.photo
        return [rle.write_runs(*edges[index], size) if index in edges else None for index in range(len(self.kinds))]

    @cached_property
    def label_map(self) -> Tensor:
        """Index of the smallest group around each pixel of the photo, (H, W) int32; −1 outside the model's view."""
        labels = np.full(self.geometry.photo, OUTSIDE, dtype=np.int32)
        rows, columns = self.grid.window
        # The rest lies in no segment: whatever is drawn over it leaves exactly that.
        whole = int(self.masks.flatten(1).all(1).nonzero()[0])
        for index in (whole, *(index for index, kind in enumerate(self.kinds) if kind == "rest")):
            labels[rows, columns] = index
        areas = {index: self._area(index) for index in self._segments}
        for index in sorted(self._segments, key=lambda index: (-areas[index], -index)):
            own = self._cut_out(index)
            np.copyto(labels[own.window], np.int32(index), where=own.mask)
        labels[: rows.start], labels[rows.stop :] = OUTSIDE, OUTSIDE
        labels[:, : columns.start], labels[:, columns.stop :] = OUTSIDE, OUTSIDE
        return torch.from_numpy(labels)

    @property
    def _segments(self) -> list[int]:
        return [index for index, kind in enumerate(self.kinds) if kind == "segment"]

    def _is_drawn(self, index: int) -> bool:
        """Tell whether a segment has to be drawn before its runs are known."""
        shape = self.shapes[index]
        return shape is not None and not isinstance(shape, rle.Runs)

    def _mask(self, index: int) -> NDArray[np.bool_]:
        return self.masks[index].numpy()

    def _runs(self, index: int) -> int:
        shape = self.shapes[index]
        if shape is None:
            return self.grid.count_runs(self._mask(index))
        return len(shape.counts) // 2 if isinstance(shape, rle.Runs) else 0

    def _edges(self, index: int, most: int) -> Edges:
        shape = self.shapes[index]
        own = drawn(shape) if shape is not None and self._is_drawn(index) else None
        runs = self._runs(index) if own is None else rle.count_column_runs(own.mask)
        if runs > most:
            wanted = f"photo_masks: wanted masks of at most {self.max_runs:,} runs over the photo in all, got more"
            raise RequestError(413, "outputs", wanted)
        if own is not None:
            column, start, stop = rle.column_runs(own.mask)
            top = (own.corner[1] + column) * self.geometry.photo[0] + own.corner[0]
            return top + start, top + stop
        return shape.edges if isinstance(shape, rle.Runs) else self.grid.edges(self._mask(index))

    def _cut_out(self, index: int) -> CroppedMask:
        shape = self.shapes[index]
        return self.grid.cut_out(self._mask(index)) if shape is None else drawn(shape)

    def _area(self, index: int) -> int:
        """Pixels of a group that the model sees."""
        shape = self.shapes[index]
        return self.grid.area(self._mask(index)) if shape is None else _clipped(shape.rectangles(), self.grid.view).area

    def _extent(self, index: int) -> int:
        """Pixels of the rectangle around a group."""
        shape = self.shapes[index]
        return self.grid.extent(self._mask(index)) if shape is None else shape.rectangles().extent


def _clipped(mask: Rectangles, view: Rectangles) -> Rectangles:
    """The part of a mask within a view of one rectangle, or of none."""
    if len(view) == 0:
        return view
    return Rectangles(
        mask.top.clip(view.top, view.bottom),
        mask.bottom.clip(view.top, view.bottom),
        mask.left.clip(view.left, view.right),
        mask.right.clip(view.left, view.right),
    ).without_empty()


def _of_rectangles(view: Rectangles, height: int) -> Edges:
    """Runs of a view of one rectangle, or of none, on a photo of that height."""
    if len(view) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    columns = np.arange(int(view.left[0]), int(view.right[0])) * height
    return columns + view.top, columns + view.bottom


def _beside(view: Edges, others: Sequence[Edges]) -> Edges:
    """Runs of what lies in a view and in none of others."""
    if len(view[0]) == 0:
        return view
    starts, stops = (np.concatenate([*ends, np.zeros(0, dtype=np.int64)]) for ends in zip(*others, strict=True))
    place = np.concatenate([*view, starts, stops])
    steps = np.ones_like(place)
    steps[len(view[0]) : 2 * len(view[0])] = -1
    steps[len(place) - len(stops) :] = -1
    order = np.argsort(place, kind="stable")
    of_view = np.arange(len(place)) < 2 * len(view[0])
    seen, covered = (np.cumsum(np.where(own, steps, 0)[order]) for own in (of_view, ~of_view))
    last = np.append(np.diff(place[order]) > 0, True)  # once all that begins or ends there has done so
    place, free = place[order][last], ((seen > 0) & (covered == 0))[last]
    before = np.concatenate([[False], free[:-1]])
    return place[free & ~before], place[~free & before]
