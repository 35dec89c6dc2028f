"""Constants that a network adds on the way from an image to its scores: biases, in whatever form they come.

Calls of functions are looked at, not modules: a norm that is fused with its activation, a layer that is called as a
function, a mean that the model takes off its input, and modules that run often are all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.attribution.network.function_kinds import CONVOLUTIONS, SUMS, TRANSPOSED_CONVOLUTIONS

ALL_CONVOLUTIONS = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS
DIFFERENCES = {torch.sub, torch.subtract, Tensor.sub, Tensor.sub_, Tensor.subtract, Tensor.subtract_}
REVERSED_DIFFERENCES = {torch.rsub, Tensor.__rsub__}
SUMS_OF_PRODUCTS = {torch.addcmul, Tensor.addcmul, torch.addmm, Tensor.addmm}


@dataclass(frozen=True)
class Constant:
    """One constant in one run of the network.

    Attributes:
        value: Constant, as it broadcasts to the output that it is a part of.
        shape: Shape (B, …) of that output.
        edge: Edge of the autograd graph at which the gradient with respect to that output comes out, whatever the model
            does to the output later.
        channels: Dimension of the channels, 1 or −1; None where the function does not say.
    """

    value: Tensor | float
    shape: Sequence[int]
    edge: GradientEdge
    channels: int | None


class Constants(FunctionCalls):
    """Recorder, while a model runs, of the constants that it adds to what depends on the image.

    A tensor depends on the image if it requires a gradient, so that nothing else of the model may require one
    (:func:`imagexplain.attribution.network.forward.frozen`). Constants that other functions add are not seen: none that
    this package knows of is linear in the image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Constant] = []

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = _added(function, args, kwargs)  # before the call, which may overwrite it
        result = function(*args, **kwargs)
        if function in (F.hardtanh, F.relu6) and result.requires_grad:
            value = _clipped(result.detach(), (0.0, 6.0) if function is F.relu6 else _bounds(*args, **kwargs))
        if value is not None and result.requires_grad:
            second = function in ALL_CONVOLUTIONS or function is F.batch_norm
            axis = 1 if second else -1 if function is F.linear else None
            if axis == 1 and isinstance(value, Tensor):
                value = value.view(-1, *[1] * (result.ndim - 2))
            self.found.append(Constant(value, result.shape, get_gradient_edge(result), axis))
        return result


def _added(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | float | None:
    """Constant that the call adds to something that depends on the image."""
    if func in ALL_CONVOLUTIONS or func is F.linear:
        return _bias(*args, **kwargs)
    if func is F.batch_norm:
        return _shift(*args, **kwargs)
    if func in SUMS:
        return _constant_term(*args, **kwargs)
    if func in DIFFERENCES:
        return _constant_term(*args, sign=-1, **kwargs)
    if func in REVERSED_DIFFERENCES:
        first, second, *rest = args
        return _constant_term(second, first, *rest, sign=-1, **kwargs)
    if func in SUMS_OF_PRODUCTS and len(args) == 3 and not kwargs and not args[0].requires_grad:
        return args[0].detach()
    return None


def _bias(input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: object, **__: object) -> Tensor | None:
    return None if bias is None else bias.detach()


def _shift(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Shift (K,) β − μγ / √(σ² + ε) of a batch norm; None for statistics of the batch's own, which are not linear."""
    if training or running_mean is None or running_var is None:
        return None
    shift = -running_mean * (running_var + eps).rsqrt()
    shift = shift if weight is None else shift * weight
    return (shift if bias is None else shift + bias).detach()


def _constant_term(
    input: Any, other: Any, *, alpha: float = 1, sign: int = 1, out: None = None
) -> Tensor | float | None:
    """Term of input + sign · alpha · other that does not depend on the image."""
    first, second = (isinstance(term, Tensor) and term.requires_grad for term in (input, other))
    if first == second:
        return None
    if second:
        return input.detach().clone() if isinstance(input, Tensor) else input
    factor = sign * alpha
    return other.detach() * factor if isinstance(other, Tensor) else other * factor


def _bounds(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> tuple[float, float]:
    return min_val, max_val


def _clipped(result: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Bound where the function is at one, for it is constant there; elsewhere it is its input."""
    return torch.where((result <= bounds[0]) | (result >= bounds[1]), result, 0.0)
