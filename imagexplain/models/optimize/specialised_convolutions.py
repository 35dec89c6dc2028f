"""Frozen convolutions in the form that is fastest on a CPU for the one input size a served model has.

Attribution runs the same network, with the same weights, on maps of the same size, forwards and backwards to the input
only. That allows what a general convolution cannot do:

- a 1×1 convolution in channels-last layout is one matrix product over all pixels;
- on a map of a few pixels most taps of a 3×3 kernel fall beside the map: on 1×1 only 1 of 9 counts, on 2×2 only 16
  of 36. Output positions that see the same window of the map share one matrix product over just that window.

Everything else keeps its convolution, in channels-last layout.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.models.optimize.map_sizes import map_sizes

MOST_WINDOWS = 4
"""Largest number of distinct windows of a map; with more it is left to the convolution, which is then as fast."""


class Pointwise(nn.Module):
    """A 1×1 convolution as a matrix product, (N, C, H, W) to (N, D, H / stride, W / stride)."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.stride = convolution.stride
        self.weight = _frozen(convolution.weight.detach().flatten(1))  # (D, C)
        self.bias = _bias(convolution)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C), contiguous when x is channels-last
        if self.stride != (1, 1):
            pixels = pixels[:, :: self.stride[0], :: self.stride[1]].contiguous()
        return F.linear(pixels, self.weight, self.bias).permute(0, 3, 1, 2)


class WindowedConv2d(nn.Module):
    """A convolution on a map of known size: one matrix product for each distinct window of the map.

    Args:
        convolution: Convolution that is ungrouped, undilated and zero-padded.
        size: Height and width (H, W) of the maps it will see.
    """

    def __init__(self, convolution: nn.Conv2d, size: tuple[int, int]) -> None:
        super().__init__()
        self.order: Tensor | None
        rows, columns = _windows(convolution, size)
        matrices: dict[tuple[range, range], list[Tensor]] = {}
        places: dict[tuple[range, range], list[int]] = {}
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                # (D, C, h, w) -> (D, h·w·C), in the order of a flattened channels-last window
                taps = convolution.weight.detach()[:, :, _slice(row.taps), _slice(column.taps)]
                matrix = taps.permute(0, 2, 3, 1).flatten(1)
                matrices.setdefault((row.pixels, column.pixels), []).append(matrix)
                places.setdefault((row.pixels, column.pixels), []).append(y * len(columns) + x)
        self.windows = list(matrices)
        self.weights = nn.ParameterList(_frozen(torch.cat(parts)) for parts in matrices.values())
        self.shape = (len(rows), len(columns), convolution.out_channels)
        order = torch.tensor([place for window in self.windows for place in places[window]])
        sorted_already = torch.equal(order, order.sort().values)
        self.register_buffer("order", None if sorted_already else order.argsort(), persistent=False)
        self.bias = _bias(convolution)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        parts = [
            F.linear(pixels[:, _slice(rows), _slice(columns)].flatten(1), weight)
            for (rows, columns), weight in zip(self.windows, self.weights, strict=True)
        ]
        output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        output = output.view(len(x), -1, self.shape[2])  # (N, positions window by window, D)
        if self.order is not None:
            output = output[:, self.order]
        if self.bias is not None:
            output = output + self.bias
        return output.view(len(x), *self.shape).permute(0, 3, 1, 2)


def specialise(network: nn.Module, example: Tensor) -> nn.Module:
    """Specialise a copy of a frozen network to inputs of ``example``'s size.

    Args:
        network: Network in ``eval()``, its parameters frozen; left as it is.
        example: Input (1, C, H, W).

    Returns:
        A network of the same function on (N, C, H, W), channels-last.
    """
    network = copy.deepcopy(network)
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    for name, size in map_sizes(network, example, convolutions).items():
        parent, _, child = name.rpartition(".")
        owner = network.get_submodule(parent)
        setattr(owner, child, _specialised(getattr(owner, child), size))
    return network.eval().to(memory_format=torch.channels_last)


def _specialised(convolution: nn.Conv2d, size: tuple[int, int]) -> nn.Module:
    if convolution.groups > 1 or convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return convolution
    if convolution.kernel_size == (1, 1) and convolution.padding == (0, 0):
        return Pointwise(convolution)
    rows, columns = _windows(convolution, size)
    if convolution.dilation == (1, 1) and _distinct(rows) * _distinct(columns) <= MOST_WINDOWS:
        return WindowedConv2d(convolution, size)
    return convolution


@dataclass(frozen=True)
class _Window:
    """Window of one output position along one axis: pixels of the map, and the taps of the kernel that meet them."""

    pixels: range
    taps: range


def _windows(convolution: nn.Conv2d, size: tuple[int, int]) -> tuple[list[_Window], list[_Window]]:
    return _axis(convolution, size[0], 0), _axis(convolution, size[1], 1)


def _axis(convolution: nn.Conv2d, length: int, axis: int) -> list[_Window]:
    kernel, stride = convolution.kernel_size[axis], convolution.stride[axis]
    padding = int(convolution.padding[axis])
    windows = []
    for position in range((length + 2 * padding - kernel) // stride + 1):
        first = position * stride - padding
        start, stop = max(first, 0), min(first + kernel, length)
        windows.append(_Window(range(start, stop), range(start - first, stop - first)))
    return windows


def _distinct(windows: list[_Window]) -> int:
    return len({window.pixels for window in windows})


def _slice(indices: range) -> slice:
    return slice(indices.start, indices.stop)


def _frozen(weight: Tensor) -> nn.Parameter:
    """A parameter, not a buffer: attribution keeps a copy of the buffers that a forward pass might change."""
    return nn.Parameter(weight.contiguous(), requires_grad=False)


def _bias(convolution: nn.Conv2d) -> nn.Parameter | None:
    return None if convolution.bias is None else _frozen(convolution.bias.detach())
