"""Rules of relevance: what comes back through each function is a part of its output's relevance, not a gradient.

Relevance R of an output z of inputs x becomes x ⊙ (∂z/∂x)ᵀ (R / z), of linear layers by what is positive in the
products of inputs and weights alone. Activations, norms and softmaxes hand it on as it is. A product of two parts
gives half to each; a sum gives each part what its own sum is of both, as magnitudes. Biases take none, and a difference
hands its relevance to the one and less of it to the other, as for two classes.

Source: Chefer, Gur, Wolf 2021, arXiv 2012.09838, equations 3 to 9, and their code, with α = 1 and β = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.network.attention_capture import AttentionWatch, Note, is_attention
from imagexplain.attribution.network.attention_steps import AttentionSteps
from imagexplain.attribution.network.function_kinds import (
    ACTIVATIONS,
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
from imagexplain.attribution.network.layers import SOFTMAXES
from imagexplain.attribution.quotients import quotient

Function = Callable[..., Tensor]
Rule = Callable[[Tensor, Function, Sequence[Tensor]], Sequence[Tensor]]
"""Function of an output's relevance, what makes it of its inputs, and these, to the relevance of the inputs."""

UNCHANGED = ACTIVATIONS | GATES | NEGATIONS | NORMS | SOFTMAXES | {F.batch_norm}


class RelevanceRules(AttentionWatch):
    """Recorder of attention with which the gradient by an attention's output is its relevance.

    From the first attention on calls are replaced by ones of equal values; those before it are left alone, for no
    relevance is asked of them. A tensor depends on the image if it requires a gradient, so that nothing else of the
    model may require one (:func:`imagexplain.attribution.network.forward.frozen`).

    Args:
        note: Function that is called with each attention's output and its shape.
        alone: True for one image, wherever its dimension is; False for any number of images, the first dimension.
    """

    def __init__(self, note: Note, alone: bool = False) -> None:
        super().__init__(note)
        self.alone = alone

    multi_head_attention = AttentionSteps.multi_head_attention

    def projection(self, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        projected: Tensor = self.step(F.linear, (tokens, weight, bias), {})
        return projected

    def step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Result of a call that hands relevance back; raises UnsupportedModelError for one without a rule."""
        parts = len(list(dependent(args, kwargs)))
        if not parts or not self.attended or function in REARRANGEMENTS:
            return super().step(function, args, kwargs)
        if "input" in kwargs:
            args, kwargs = (kwargs["input"], *args), {name: one for name, one in kwargs.items() if name != "input"}
        rule = self._rule(function, args, kwargs, parts)
        if rule is None:
            result = super().step(function, args, kwargs)
            if function not in SUMS and any(True for _ in dependent(result)):
                raise no_rule(function)
            return result
        result = _ruled(rule, function, args, kwargs)
        if is_attention(function, args, kwargs, result):
            self.seen(result, result.shape)
        return result

    def _rule(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], parts: int) -> Rule | None:
        """Rule of a call, None for a sum with a constant and for what has no rule."""
        if function in UNCHANGED:
            return _unchanged
        if function is F.linear:
            return partial(_positive, args[1] if len(args) > 1 else kwargs["weight"])
        if function in MATRIX_PRODUCTS and parts == 1 and args[0].requires_grad and args[1].ndim == 2:
            return partial(_positive, args[1].mT)
        if function in SUMS and parts == 2:
            return partial(_by_magnitude, self.alone)
        first = function in QUOTIENTS and parts == 1 and args[0].requires_grad
        return _in_proportion if first or function in PRODUCTS | MATRIX_PRODUCTS | MEANS else None


def _ruled(rule: Rule, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    places = [place for place, one in enumerate(args) if isinstance(one, Tensor) and one.requires_grad]

    def of(*inputs: Tensor) -> Tensor:
        given = list(args)
        for place, one in zip(places, inputs, strict=True):
            given[place] = one
        return function(*given, **kwargs)

    result: Tensor = _Ruled.apply(rule, of, *(args[place] for place in places))
    return result


class _Ruled(torch.autograd.Function):
    """Function of inputs whose backward pass is a rule of relevance."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, function: Function, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.function = rule, function
        ctx.save_for_backward(*_copies(inputs))
        result = function(*inputs)
        if any(result is one for one in inputs):  # in place
            ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Any, ...]:
        return (None, None, *ctx.rule(relevance[0], ctx.function, ctx.saved_tensors))


def _copies(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies that nothing in the model overwrites."""
    return [one.detach().clone() for one in values]


def _unchanged(relevance: Tensor, _: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [relevance.to(inputs[0].dtype)]


def _positive(weight: Tensor, relevance: Tensor, _: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Share of each input in the sum of the positive products of inputs and weights."""
    signs = [(inputs[0].clamp_min(0), weight.clamp_min(0)), (inputs[0].clamp_max(0), weight.clamp_max(0))]
    first, second = (F.linear(*sign) for sign in signs)
    share = quotient(relevance, first + second)
    first, second = (values * (share @ weights) for values, weights in signs)
    return [first + second]


def _in_proportion(relevance: Tensor, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Share of each input in the output, halved for two."""
    with torch.enable_grad():
        given = [one.clone().requires_grad_() for one in inputs]
        output = function(*(one.clone() for one in given))  # which may overwrite what it gets
        shares = torch.autograd.grad(output, given, quotient(relevance, output.detach()) / len(inputs))
    return [one * share for one, share in zip(inputs, shares, strict=True)]


def _by_magnitude(alone: bool, relevance: Tensor, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Share of each input in the output, scaled so that an image's shares are as their sums' magnitudes."""
    share = quotient(relevance, function(*_copies(inputs)))
    parts = [one * share for one in inputs]
    sums = [_sum(part, alone) for part in parts]
    scale = quotient(_sum(relevance, alone), torch.stack(sums).abs().sum(0))
    return [part * (one.sign() * scale) for part, one in zip(parts, sums, strict=True)]


def _sum(values: Tensor, alone: bool) -> Tensor:
    """Sum of each image's values, as it broadcasts to them."""
    return values.sum(tuple(range(0 if alone else 1, values.ndim)), keepdim=True)
