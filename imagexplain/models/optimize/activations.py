"""Activations out of place: where the derivative needs the input, one in place costs a copy of it."""

from __future__ import annotations

from torch import Tensor, nn

NEED_THEIR_INPUT = (nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Mish, nn.SiLU)
"""Activations whose derivative is a function of the input; ReLU6 is a Hardtanh. A ReLU's is one of the output."""


def out_of_place(network: nn.Module, example: Tensor) -> nn.Module:
    """Put these activations out of place, in the network itself: the same values, one copy of each map less."""
    for module in network.modules():
        if isinstance(module, NEED_THEIR_INPUT):
            module.inplace = False
    return network
