"""Marks on a picture that leave what they mark to be seen: outlines of masks, and numbers in regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from imagexplain.vision.figure import INK, PAPER
from imagexplain.vision.lettering import font, write

_SIDE = 160  # pixels of a mask along which the middle of a region is looked for


@dataclass(frozen=True)
class Mark:
    """Number in a region.

    Attributes:
        number: Number, the same as in the legend.
        x: Column of its middle, pixels of the panel.
        y: Row of its middle, pixels of the panel.
        radius: Radius of the largest circle about the middle that lies within the region, pixels of the panel.
    """

    number: int
    x: float
    y: float
    radius: float


def pole(mask: NDArray[np.bool_], pixel: tuple[float, float] = (1.0, 1.0)) -> tuple[float, float, float]:
    """Pole of inaccessibility of a mask: the middle of the largest circle within it, and that circle's radius.

    Args:
        mask: Mask (h, w), not empty; a large one is looked at on a coarser grid.
        pixel: Height and width of each of its pixels.

    Returns:
        Row and column of the middle, and the radius, in the unit of ``pixel``.
    """
    stride = max(1, max(mask.shape) // _SIDE)
    grid = mask[::stride, ::stride]
    if not grid.any():  # a thin mask falls through the coarser grid
        stride, grid = 1, mask
    inside = np.pad(grid, 1)  # what lies beyond the picture is outside
    # Distances from a pixel's centre to the nearest centre outside; half a pixel less to the edge between them.
    distance = distance_transform_edt(inside, sampling=(pixel[0] * stride, pixel[1] * stride))
    row, column = divmod(int(distance.argmax()), inside.shape[1])
    radius = float(distance[row, column]) - stride * min(pixel) / 2
    return ((row - 1) * stride + 0.5) * pixel[0], ((column - 1) * stride + 0.5) * pixel[1], radius


def apart(mask: NDArray[np.bool_], taken: Iterable[tuple[float, float]], reach: float) -> NDArray[np.bool_]:
    """Mask without the surroundings of places (row, column) that are taken, or all of it where nothing is left."""
    free = mask.copy()
    for row, column in taken:
        top, left = max(0, int(row - reach)), max(0, int(column - reach))
        free[top : max(0, int(row + reach) + 1), left : max(0, int(column + reach) + 1)] = False
    return free if free.any() else mask


def rim(mask: NDArray[np.bool_], thickness: int = 1) -> NDArray[np.bool_]:
    """Pixels (H, W) of a mask that lie so near to its edge, or to the picture's."""
    if mask.size == 0:
        return mask
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), dtype=np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def edges(labels: NDArray[np.int64], thickness: int = 1) -> NDArray[np.bool_]:
    """Pixels (H, W) along which two labels meet."""
    edge = np.zeros(labels.shape, dtype=np.uint8)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    if thickness > 1:
        edge = cv2.dilate(edge, np.ones((thickness, thickness), dtype=np.uint8))
    return edge.astype(np.bool_)


def numbered(panel: Image.Image, marks: Sequence[Mark], em: int) -> Image.Image:
    """Draw the numbers into the panel, in dark figures with a light rim; a small region gets a small number.

    The panel itself is changed.

    Args:
        panel: RGB image of the panel.
        marks: Numbers to write, with their places.
        em: Size of the largest numbers, pixels.
    """
    draw = ImageDraw.Draw(panel)
    for mark in reversed(marks):  # the first of the legend lies on top
        size = min(em, max(9, round(1.3 * mark.radius)))
        half = 0.35 * size * len(str(mark.number))
        x = min(max(mark.x, half), max(half, panel.width - half))
        y = min(max(mark.y, size / 2), max(size / 2, panel.height - size / 2))
        face = font(size, bold=True)
        rim_width = max(1, round(size / 6))
        write(draw, (x, y), str(mark.number), face, INK, anchor="mm", stroke_width=rim_width, stroke_fill=PAPER)
    return panel
