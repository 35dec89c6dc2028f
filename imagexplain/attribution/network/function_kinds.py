"""Kinds of torch's functions, by what they do to tensors that depend on the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import resolve_name

from imagexplain.errors import UnsupportedModelError


def _named(names: str) -> frozenset[Any]:
    """Functions of these names, and methods of tensors, in place or not."""
    spellings = [spelling for name in names.split() for spelling in (name, f"{name}_", f"__i{name}__")]
    places = (torch, Tensor, F)
    return frozenset(getattr(place, name) for place in places for name in spellings if hasattr(place, name))


ACTIVATIONS = _named("relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardtanh tanh softsign")
"""Elementwise functions f with f(0) = 0."""
GATES = _named("sigmoid hardsigmoid")
"""Elementwise functions that networks multiply a signal by."""
NORMS = frozenset({F.layer_norm, F.group_norm, F.rms_norm, F.normalize, torch.layer_norm, torch.group_norm})
SUMS = _named("add")
NEGATIONS = _named("neg negative")
PRODUCTS = _named("mul multiply")
QUOTIENTS = _named("div divide true_divide")
MATRIX_PRODUCTS = _named("matmul bmm")
MEANS = _named("mean sum adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d")
CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv3d})
"""Convolutions but for transposed ones; ``torch.conv1d`` and the others are the same objects."""
TRANSPOSED_CONVOLUTIONS = frozenset({F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d})
REARRANGEMENTS = _named(
    "view view_as reshape flatten unflatten permute transpose swapaxes movedim contiguous clone squeeze unsqueeze "
    "expand expand_as repeat repeat_interleave broadcast_to unbind chunk split tensor_split narrow select index_select "
    "gather cat concat stack roll flip pad masked_fill to type_as float double half bfloat16 dropout alpha_dropout "
    "sub subtract rsub"
) | {
    Tensor.__getitem__,
    *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")),
}
"""Functions whose results are values that they are given, or differences of them; dropout is none in ``eval()``."""


def dependent(*values: Any) -> Iterator[Tensor]:
    """Yield the tensors of arguments, in lists too, that require a gradient: in a frozen model, the image's."""
    for value in values:
        if isinstance(value, Tensor):
            if value.requires_grad:
                yield value
        elif isinstance(value, list | tuple):
            yield from dependent(*value)
        elif isinstance(value, dict):
            yield from dependent(*value.values())


def no_rule(function: Callable[..., Any]) -> UnsupportedModelError:
    """Error of a function that no rule covers."""
    name = resolve_name(function) or getattr(function, "__name__", str(function))
    return UnsupportedModelError("model", f"wanted one made of functions that have a rule, got one that calls {name}")
