"""Backward rules under which the gradient times the input is relevance: each function is taken for a linear one.

Where a function is not linear in the image, a part of it is held: a norm's divisor, an activation's ratio of output to
input. A product of two parts hands half of its gradient to each. The softmax of attention is held too, or not. Values
are as ever; only what comes back is another, and no module is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.network.attention_capture import is_attention
from imagexplain.attribution.network.attention_steps import AttentionSteps
from imagexplain.attribution.network.function_kinds import (
    ACTIVATIONS,
    CONVOLUTIONS,
    GATES,
    MATRIX_PRODUCTS,
    MEANS,
    NEGATIONS,
    NORMS,
    PRODUCTS,
    QUOTIENTS,
    REARRANGEMENTS,
    SUMS,
    dependent,
    no_rule,
)
from imagexplain.attribution.quotients import quotient

LINEAR = SUMS | NEGATIONS | MEANS | REARRANGEMENTS | CONVOLUTIONS | {F.linear, F.batch_norm, F.interpolate}
NEAR_ZERO = 1e-6
"""Input in place of 0, at which the ratio of an activation's output to its input is taken."""


class BackwardRules(AttentionSteps):
    """Replacement of a model's functions by ones of equal values and other gradients.

    A tensor depends on the image if it requires a gradient, so that nothing else of the model may require one
    (:func:`imagexplain.attribution.network.forward.frozen`).

    Args:
        hold_attention: Softmax of attention held, so that queries and keys get no gradient; else they get a half of the
            products' each.
        gamma: Strength γ by which linear layers favour what has their output's sign; 0 for the plain gradient. The
            projections of torch's multi-head attention, which no layer calls, keep that.
        conv_gamma: Same of convolutions.
    """

    def __init__(self, *, hold_attention: bool, gamma: float = 0.0, conv_gamma: float = 0.0) -> None:
        super().__init__()
        self.hold_attention, self.gamma, self.conv_gamma = hold_attention, gamma, conv_gamma

    def step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Result of a call with another gradient; raises UnsupportedModelError for one without a rule."""
        parts = len(list(dependent(args, kwargs)))
        if not parts:
            return function(*args, **kwargs)
        if function in NORMS:
            return _NORMS[function](*args, **kwargs)
        if function in ACTIVATIONS:
            return _gated(function, args, kwargs)
        if function is F.linear and self.gamma:
            return _by_sign(F.linear, self.gamma, *args, **kwargs)
        if function in CONVOLUTIONS and self.conv_gamma:
            return _by_sign(function, self.conv_gamma, *args, **kwargs)
        result = function(*args, **kwargs)
        if is_attention(function, args, kwargs, result):
            return result.detach() if self.hold_attention else result
        if function in GATES:
            return result.detach()
        if function in PRODUCTS or function in MATRIX_PRODUCTS:
            return result if parts == 1 else _Halved.apply(result)
        if function in LINEAR or (function in QUOTIENTS and parts == 1 and args[0].requires_grad):
            return result
        if any(True for _ in dependent(result)):
            raise no_rule(function)
        return result


class _Halved(torch.autograd.Function):
    """Identity that hands back half of the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 2


def _gated(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """An activation f(x) as x times the ratio f(x) / x, which is held."""
    kwargs = dict(kwargs)
    values, *options = args or (kwargs.pop("input"),)
    copy = values.detach().masked_fill(values.detach() == 0, NEAR_ZERO)
    given = copy.clone()
    outputs = function(given, *options, **kwargs)
    result: Tensor = values * (outputs / copy)
    return values.copy_(result) if outputs is given else result


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(_centred(input, dims, eps), weight, bias)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor:
    groups = input.unflatten(1, (num_groups, -1))
    normed = _centred(groups, tuple(range(2, groups.ndim)), eps).flatten(1, 2)
    sides = (-1, *[1] * (input.ndim - 2))
    return _affine(normed, None if weight is None else weight.view(sides), None if bias is None else bias.view(sides))


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    held = input.detach()
    eps = torch.finfo(held.dtype).eps if eps is None else eps
    scale = (held.square().mean(tuple(range(-len(normalized_shape), 0)), keepdim=True) + eps).rsqrt()
    return _affine(input * scale, weight, None)


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


_NORMS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    F.rms_norm: _rms_norm,
    F.normalize: _normalize,
}


def _centred(values: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Values less their mean, over the root of their variance, which is held."""
    variance = values.detach().var(dims, correction=0, keepdim=True)
    return (values - values.mean(dims, keepdim=True)) / (variance + eps).sqrt()


def _affine(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = values if weight is None else values * weight
    return scaled if bias is None else scaled + bias


def _by_sign(
    function: Callable[..., Tensor],
    gamma: float,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *options: Any,
    **named: Any,
) -> Tensor:
    result: Tensor = _BySign.apply(input, weight, bias, gamma, lambda x, w, b: function(x, w, b, *options, **named))
    return result


class _BySign(torch.autograd.Function):
    """A linear function whose backward pass is the γ rule, for inputs of both signs.

    For an output z > 0 the weights are W + γW⁺ where the input is positive and W + γW⁻ where it is negative, for z < 0
    the other way round, and the bias b + γb⁺ or b + γb⁻; the gradient is scaled by z over what they give.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: float,
        function: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        ctx.values, ctx.weight, ctx.bias, ctx.gamma, ctx.function = (
            values.detach().clone(),
            weight,
            bias,
            gamma,
            function,
        )
        return function(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        values, function, gamma = ctx.values, ctx.function, ctx.gamma
        up, down = (ctx.weight + gamma * part for part in (ctx.weight.clamp_min(0), ctx.weight.clamp_max(0)))
        result = function(values, ctx.weight, ctx.bias)
        flow = gradients[0] * result
        total = torch.zeros_like(values)
        for sign, same, other in ((1, up, down), (-1, down, up)):
            bias = None if ctx.bias is None else ctx.bias + gamma * sign * (sign * ctx.bias).clamp_min(0)
            found = function(values.clamp_min(0), same, bias) + function(values.clamp_max(0), other, None)
            share = quotient(flow, found) * (sign * result > 0)
            above, below = (_transposed(function, values, one, share) for one in (same, other))
            total += torch.where(values >= 0, above, below)
        return total, None, None, None, None


def _transposed(function: Callable[..., Tensor], values: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    """Gradient of a linear function of values with these weights, times its result's share."""
    with torch.enable_grad():
        given = values.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(given, weight, None), given, share)
    return gradient
