"""Outlines of the shapes in a scene, and their exact area coverage on a pixel grid.

An outline is a tuple of closed contours, each (V, 2) of x, y with y down, in a circle of radius 1 around the origin.
Where contours overlap their windings add up: a reversed contour cuts a hole, two of the same sense make a union.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Outline = tuple[Array, ...]
Draw = Callable[[np.random.Generator], Outline]

ARC = 48  # vertices of a full circle: at a radius of 60 pixels the polygon is 0.13 pixels flat, at 10 it is 0.02


def _polar(radii: Array | float, angles: NDArray[np.floating]) -> Array:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _regular(corners: int) -> Outline:
    return (_polar(1.0, np.arange(corners) * (2 * np.pi / corners)),)


def _bar(start: Sequence[float], end: Sequence[float], half_width: float) -> Array:
    """The rectangle of the given half width around the line from start to end; always of the same sense."""
    (x0, y0), (x1, y1) = start, end
    scale = half_width / np.hypot(x1 - x0, y1 - y0)
    u, v = (y1 - y0) * scale, -(x1 - x0) * scale
    return np.array([[x0 + u, y0 + v], [x1 + u, y1 + v], [x1 - u, y1 - v], [x0 - u, y0 - v]])


def _diamond(rng: np.random.Generator) -> Outline:
    waist = rng.uniform(0.48, 0.6)  # far from 1, so that no turned square is a diamond
    return (np.array([[1.0, 0.0], [0.0, waist], [-1.0, 0.0], [0.0, -waist]]),)


def _star(rng: np.random.Generator) -> Outline:
    radii = np.where(np.arange(10) % 2, rng.uniform(0.38, 0.46), 1.0)
    return (_polar(radii, np.arange(10) * (np.pi / 5)),)


def _cross(rng: np.random.Generator) -> Outline:
    b = rng.uniform(0.24, 0.3)  # half the width of an arm
    a = np.sqrt(1 - b * b)
    return (np.array([[a, -b], [a, b], [b, b], [b, a], [-b, a], [-b, b], [-a, b], [-a, -b], [-b, -b], [-b, -a], [b, -a],
                      [b, -b]]),)  # fmt: skip


def _ring(rng: np.random.Generator) -> Outline:
    disc = _regular(ARC)[0]
    return disc, disc[::-1] * rng.uniform(0.5, 0.62)


def _crescent(rng: np.random.Generator) -> Outline:
    """The unit disc without a disc of radius q whose centre lies d to the right."""
    d, q = rng.uniform(0.38, 0.46), rng.uniform(0.8, 0.86)
    x = (1 + d * d - q * q) / (2 * d)  # the two circles meet at (x, ±y)
    y = np.sqrt(1 - x * x)
    outer, inner = np.arctan2(y, x), np.arctan2(y, x - d)
    back = _polar(1.0, np.linspace(outer, 2 * np.pi - outer, ARC))
    bite = _polar(q, np.linspace(2 * np.pi - inner, inner, ARC)) + np.array([d, 0.0])
    return (np.concatenate([back, bite[1:-1]]),)


def _thin_bar(rng: np.random.Generator) -> Outline:
    b = rng.uniform(0.12, 0.22)
    a = np.sqrt(1 - b * b)
    return (_bar((-a, 0.0), (a, 0.0), b),)


def _blob(rng: np.random.Generator) -> Outline:
    """A smooth closed curve with two and three uneven lobes: never round, never straight."""
    angles = np.arange(ARC) * (2 * np.pi / ARC)
    turns = rng.uniform(0.0, 2 * np.pi, 2)
    swing = rng.uniform(0.2, 0.32, 2)
    radii = 1 + swing[0] * np.cos(2 * angles + turns[0]) + swing[1] * np.cos(3 * angles + turns[1])
    return (_polar(radii / radii.max(), angles),)


def _shard(rng: np.random.Generator) -> Outline:
    """A lopsided splinter: a triangle with one sharp tip and its far side notched."""
    wings = rng.uniform(2.3, 2.85), -rng.uniform(2.3, 2.85)
    radii = np.array([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.0, 0.3), rng.uniform(0.4, 0.7)])
    return (_polar(radii, np.array([0.0, wings[0], np.pi, wings[1]])),)


def _stroke(rng: np.random.Generator) -> Outline:
    """A letter-like mark, one of L, T, V, Z, from two or three bars."""
    letters: tuple[tuple[tuple[float, float], ...], ...] = (
        ((-0.5, -0.8), (-0.5, 0.7), (0.5, 0.7)),
        ((-0.6, -0.7), (0.6, -0.7), (0.0, -0.7), (0.0, 0.8)),
        ((-0.6, -0.7), (0.0, 0.7), (0.6, -0.7)),
        ((-0.6, -0.7), (0.6, -0.7), (-0.6, 0.7), (0.6, 0.7)),
    )
    letter = letters[rng.integers(len(letters))]
    half_width = rng.uniform(0.12, 0.18)
    return tuple(_bar(start, end, half_width) for start, end in pairwise(letter))


CLASS_SHAPES: Mapping[str, Draw] = {
    "circle": lambda rng: _regular(ARC),
    "square": lambda rng: _regular(4),
    "triangle": lambda rng: _regular(3),
    "diamond": _diamond,
    "pentagon": lambda rng: _regular(5),
    "hexagon": lambda rng: _regular(6),
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
}

DISTRACTOR_SHAPES: Mapping[str, Draw] = {"bar": _thin_bar, "blob": _blob, "shard": _shard, "stroke": _stroke}


def place(outline: Outline, centre: tuple[float, float], radius: float, angle: float) -> Outline:
    """The outline turned by `angle` (radians), scaled to `radius` and moved to `centre` (x, y), both in pixels."""
    cos, sin = np.cos(angle) * radius, np.sin(angle) * radius
    turn = np.array([[cos, sin], [-sin, cos]])
    return tuple(contour @ turn + centre for contour in outline)


def coverage(outline: Outline, size: tuple[int, int]) -> Array:
    """The fraction of every pixel that the outline covers, by exact integration along the edges.

    Every edge is cut where it meets a line of the pixel grid. Each piece then lies in one pixel, and the signed area
    between it and the right border of its row is its height times its distance from there; a running sum over the row
    adds up what lies to the left.

    Args:
        outline: Contours in pixels; pixel (0, 0) is the unit square at the origin. Parts outside the grid are cut off.
        size: (H, W) in pixels.

    Returns:
        (H, W) float64 in 0 … 1; exact wherever contours of the same sense do not share part of a pixel.

    Raises:
        Nothing: an outline outside the grid has zero coverage.
    """
    height, width = size
    start = np.concatenate(outline)
    step = np.concatenate([np.roll(contour, -1, axis=0) for contour in outline]) - start
    lines = np.concatenate([_cuts(start[:, 0], step[:, 0], width), _cuts(start[:, 1], step[:, 1], height)], axis=1)
    lines.sort(axis=1)
    x = start[:, :1] + lines * step[:, :1]
    y = start[:, 1:] + lines * step[:, 1:]
    rise = np.diff(y, axis=1)
    real = rise != 0
    rise = rise[real]
    x_mid = np.clip((x[:, 1:] + x[:, :-1])[real] / 2, 0.0, width)
    row = np.floor((y[:, 1:] + y[:, :-1])[real] / 2).astype(np.int64)
    column = np.floor(x_mid).astype(np.int64)
    here = rise * (column + 1 - x_mid)
    inside = (row >= 0) & (row < height)
    cell = (row * (width + 2) + column)[inside]
    deposits = np.bincount(cell, here[inside], height * (width + 2))
    deposits += np.bincount(cell + 1, (rise - here)[inside], height * (width + 2))
    winding = np.cumsum(deposits.reshape(height, width + 2), axis=1)[:, :width]
    return np.clip(np.abs(winding), 0.0, 1.0)


def _cuts(start: Array, step: Array, lines: int) -> Array:
    """(E, L) places on each edge, 0 … 1, where it crosses the grid lines near the outline; its two ends included."""
    low = np.clip(np.floor(start.min()), 0, lines)
    high = np.clip(np.ceil(start.max()), 0, lines)
    grid = np.arange(low, high + 1)
    safe = np.where(step == 0, 1.0, step)
    at = np.clip((grid - start[:, None]) / safe[:, None], 0.0, 1.0)
    at[step == 0] = 0.0
    return np.concatenate([np.zeros((len(start), 1)), at, np.ones((len(start), 1))], axis=1)
