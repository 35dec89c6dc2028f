"""TensorFlow's "same" padding without a copy of the padded map, for inputs of one size.

A stride of 2 often wants one row more after the map than before it, which no convolution of PyTorch's takes: timm pads
the map first. A filter with a row of zeros in front of it wants the same number on both sides, and reads the same.
"""

from __future__ import annotations

import sys
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.models.optimize.map_sizes import map_sizes


def fix_same_padding(network: nn.Module, example: Tensor) -> nn.Module:
    """Fix the padding of timm's ``Conv2dSame`` to that of the example's size, in the network itself.

    Args:
        network: Network in ``eval()`` from (N, C, H, W) to scores, its weights frozen.
        example: Input (1, C, H, W) of the only size that the network will be asked.

    Returns:
        The network, plain convolutions in place of those that met maps of one size; same scores, same gradients.
    """
    if "timm" not in sys.modules:
        return network
    from timm.layers import Conv2dSame

    convolutions = {name: module for name, module in network.named_modules() if type(module) is Conv2dSame}
    for name, size in map_sizes(network, example, convolutions).items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _plain(convolutions[name], size))
    return network


def _plain(convolution: Any, size: tuple[int, int]) -> nn.Conv2d:
    """A convolution that pads both sides alike, for maps of this size (H, W)."""
    geometry = zip(size, convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
    total = [
        max(((length - 1) // stride) * stride + dilation * (kernel - 1) + 1 - length, 0)
        for length, kernel, stride, dilation in geometry
    ]
    # A row of zeros stands for as many rows of padding as the taps lie apart: with dilation it could be too many.
    odd = [pad % 2 for pad in total]
    if any(extra and dilation > 1 for extra, dilation in zip(odd, convolution.dilation, strict=True)):
        return convolution
    weight = F.pad(convolution.weight, (odd[1], 0, odd[0], 0))  # (D, C, k + odd, k + odd)
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        (weight.shape[2], weight.shape[3]),
        convolution.stride,
        ((total[0] + 1) // 2, (total[1] + 1) // 2),
        convolution.dilation,
        convolution.groups,
        convolution.bias is not None,
        device="meta",
    )
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
    return plain.eval()
