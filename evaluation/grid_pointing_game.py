"""The grid pointing game: a class's positive attribution in its own tile of a mosaic of photos.

A mosaic of n × n photos of different classes needs no annotation: what supports a class lies in its own photo. A map
that ignores the class gets 1 / n² on average over the mosaic's classes, whatever it shows, for its shares add up to 1.

Source: Böhle, Fritz, Schiele, "Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR 2021,
arXiv 2104.00032, section 4; the authors' code in github.com/moboehle/CoDA-Nets, interpretability/analyses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagexplain.errors import ArgumentError


def mosaic(tiles: Tensor) -> Tensor:
    """One image (C, n·h, n·w) of n² tiles (n², C, h, w), row by row.

    Raises:
        ArgumentError: a number of tiles that is no square.
    """
    count, channels, height, width = tiles.shape
    side = _side("tiles", count)
    rows = tiles.view(side, side, channels, height, width).permute(2, 0, 3, 1, 4)  # (C, n, h, n, w)
    return rows.reshape(channels, side * height, side * width)


def tile_masks(size: tuple[int, int], side: int) -> Tensor:
    """(n², H, W) bool, the pixels of each tile of an H × W mosaic, row by row.

    Raises:
        ArgumentError: a side that does not divide the size.
    """
    if side < 1 or size[0] % side or size[1] % side:
        raise ArgumentError("side", f"wanted a divisor of {size[0]} × {size[1]}, got {side}")
    rows, columns = (torch.arange(length) // (length // side) for length in size)
    return (rows[:, None] * side + columns) == torch.arange(side**2).view(-1, 1, 1)


def grid_pointing_game(values: Tensor, side: int) -> Tensor:
    """(n²,) float64, the share of a map's positive values in each tile; the class's own tile is what counts.

    All 0 where nothing is positive, as in the authors' code: a map that supports nothing finds no tile.

    Args:
        values: Map (H, W), signed; of several channels the sum.
        side: Number n of tiles along a side.

    Raises:
        ArgumentError: a side that does not divide the map's size.
    """
    positive = values.double().clamp(min=0)
    sums = (tile_masks((values.shape[0], values.shape[1]), side) * positive).sum((1, 2))
    total = sums.sum()
    return sums / total if total > 0 else sums


def inner_borders(size: tuple[int, int], side: int, margin: int) -> Tensor:
    """(H, W) bool, the pixels at most ``margin`` from a border between two tiles; an artefact of mosaics."""
    near = [torch.zeros(length, dtype=torch.bool) for length in size]
    for line, length in zip(near, size, strict=True):
        for border in range(1, side):
            place = border * (length // side)
            line[max(0, place - margin) : place + margin] = True
    return near[0][:, None] | near[1]


def _side(name: str, count: int) -> int:
    side = math.isqrt(count)
    if count < 1 or side**2 != count:
        raise ArgumentError(name, f"wanted a square number of them, got {count}")
    return side
