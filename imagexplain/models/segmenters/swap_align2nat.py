"""SwapAlign2Nat: from masks that neighbouring windows share to the mask of each window, at a coarser stride.

A dense mask predictor holds at every position (y, x) a V×U grid of mask values. In the *aligned* representation the
value for pixel (v, u) of the window at (y, x) is stored where that pixel lies in the picture, at (y + v − V/2,
x + u − U/2); in the *natural* representation it is stored at the window's own position. The operator goes from aligned
to natural and swaps units: λ times fewer positions per axis, windows of λ times as many pixels. It never extrapolates:
whatever lies outside the tensor counts as :data:`PADDING`.

Source: Chen, Girshick, He, Dollár, "TensorMask: A Foundation for Dense Object Segmentation", ICCV 2019, arXiv
1903.12174, section 4. Numbers agree with the CUDA operator of detectron2's ``projects/TensorMask``
(https://github.com/facebookresearch/detectron2, Apache-2.0). The code here is differentiable PyTorch and runs on every
device.

Along one axis, output pixel v of window y reads the input at position λy + v + ½ − λV/2 and grid row (v + ½)/λ − ½.
The fraction of the position is the same for all v and y, 0 or ½: one average of neighbours serves the whole tensor.
Only the grid row needs weights of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = -6.0
"""Logit outside the tensor: sigmoid(−6) = 0.0025, no mask."""

_BORDER = 2  # positions: wide enough that the average of two neighbours can be padding alone
_RING = 1  # grid rows and columns


def swap_align2nat(x: Tensor, lambda_: int) -> Tensor:
    """Compute every window's mask.

    Args:
        x: Aligned mask logits (N, V·V, H, W).
        lambda_: Factor λ, at least 1: so many times fewer positions, and masks so many times larger.

    Returns:
        (N, λV·λV, ⌈H/λ⌉, ⌈W/λ⌉), natural.

    Raises:
        ValueError: the number of channels is no square, or ``lambda_`` is below 1.
    """
    size = grid_size(x, lambda_)
    height, width = x.shape[2:]
    rows = _axis(torch.arange(-(-height // lambda_), device=x.device), size, lambda_, height)
    columns = _axis(torch.arange(-(-width // lambda_), device=x.device), size, lambda_, width)
    y = _bordered(x, size, lambda_).transpose(2, 3)  # (N, V, H, V, W)
    y = _interpolated(_interpolated(y, 1, rows), 3, columns)  # (N, ⌈H/λ⌉, λV, ⌈W/λ⌉, λV)
    return y.permute(0, 2, 4, 1, 3).flatten(1, 2)


def masks_at(x: Tensor, lambda_: int, locations: Tensor, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Compute the masks of some windows only: what :func:`swap_align2nat` returns there, without the rest.

    Args:
        x: Aligned mask logits (N, V·V, H, W); or a crop of them that contains all the windows' pixels.
        lambda_: Factor λ, as in :func:`swap_align2nat`.
        locations: Locations (L, 3), int64: index of the picture, and row and column in the coarse grid.
        offset: Row and column of the crop's first position in the whole tensor.

    Returns:
        (L, λV, λV).

    Raises:
        ValueError: as in :func:`swap_align2nat`.
    """
    size = grid_size(x, lambda_)
    picture, row, column = locations.unbind(1)
    rows = _axis(row, size, lambda_, x.shape[2], offset[0])
    columns = _axis(column, size, lambda_, x.shape[3], offset[1])
    y = _bordered(x, size, lambda_).contiguous()  # (N, V, V, H', W'): indexed flat, below
    per_picture, per_row, per_column, per_line, _ = y.stride()
    start = (picture[:, None] * per_picture + rows.position * per_line)[:, :, None] + columns.position[:, None, :]
    flat = y.flatten()
    mask = torch.zeros((), dtype=x.dtype, device=x.device)
    for v, v_weight in rows.taps(x.dtype):
        for u, u_weight in columns.taps(x.dtype):
            tap = start + (v * per_row)[:, None] + u * per_column
            mask = mask + (v_weight[:, None] * u_weight) * flat[tap]
    return mask


def covered(lambda_: int, size: int, locations: Tensor, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rectangle of the positions that some windows read: the least that contains them, within the tensor.

    Args:
        lambda_: Factor λ, as in :func:`swap_align2nat`.
        size: Side V of the grid of mask values.
        locations: Locations (L, 3) as in :func:`masks_at`, at least one.
        shape: Height and width of the aligned tensor.

    Returns:
        First row, first column, and the row and column after the last.
    """
    first = lambda_ * locations[:, 1:] - lambda_ * size // 2
    top, left = first.amin(0).clamp(min=0).tolist()
    bottom, right = (first.amax(0) + lambda_ * size + 1).tolist()
    return top, left, min(bottom, shape[0]), min(right, shape[1])


def grid_size(x: Tensor, lambda_: int) -> int:
    """Side V of aligned masks (N, V·V, H, W); checks the arguments of the operator."""
    size = round(x.shape[1] ** 0.5)
    if x.ndim != 4 or size * size != x.shape[1]:
        raise ValueError(f"x: wanted (N, V·V, H, W), given {tuple(x.shape)}")
    if lambda_ < 1:
        raise ValueError(f"lambda_: wanted at least 1, given {lambda_}")
    return size


class _Axis(NamedTuple):
    """Positions at which one axis of the masks is read.

    Attributes:
        position: Index (L, λV) into the bordered positions, per window and mask pixel.
        row: Fractional index (λV,), float64, into the bordered grid.
    """

    position: Tensor
    row: Tensor

    def taps(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Grid rows, two neighbouring ones, and their weights, each (λV,)."""
        below = self.row.floor()
        weight = (self.row - below).to(dtype)
        return [(below.long(), 1 - weight), (below.long() + 1, weight)]


def _axis(windows: Tensor, size: int, lambda_: int, length: int, offset: int = 0) -> _Axis:
    """Reads of some windows (L,) along an axis with ``length`` positions."""
    pixels = torch.arange(lambda_ * size, device=windows.device)
    position = lambda_ * windows[:, None] + pixels - lambda_ * size // 2 - offset
    row = (pixels.double() + 0.5) / lambda_ - 0.5
    return _Axis(position.clamp(-_BORDER, length) + _BORDER, row + _RING)


def _bordered(x: Tensor, size: int, lambda_: int) -> Tensor:
    """Tensor (N, V, V, H', W') with padding on every side; moved by half a position where windows have an even size."""
    grid = F.pad(x.unflatten(1, (size, size)), 2 * (_BORDER,) * 2 + 2 * (_RING,) * 2, value=PADDING)
    if (lambda_ * size) % 2:
        return grid
    return F.avg_pool2d(grid.flatten(0, 1), 2, stride=1).unflatten(0, grid.shape[:2])


def _interpolated(y: Tensor, dim: int, axis: _Axis) -> Tensor:
    """Interpolate from (grid row, position) at dimensions ``dim`` and ``dim + 1`` to (window, mask pixel)."""
    positions = y.shape[dim + 1]
    flat = y.flatten(dim, dim + 1)
    spread = [1] * y.ndim
    spread[dim + 1] = -1
    taps = [
        flat.index_select(dim, (row * positions + axis.position).flatten()).unflatten(dim, axis.position.shape)
        * weight.reshape(spread)
        for row, weight in axis.taps(y.dtype)
    ]
    return taps[0] + taps[1]
