"""Layer-wise relevance propagation: the score, handed back layer by layer in proportion to what each input adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from imagexplain.attribution.methods.deep_lift import ELEMENTWISE
from imagexplain.attribution.network.constants import ALL_CONVOLUTIONS
from imagexplain.attribution.network.forward import check_graph, class_scores, isolated
from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, check_images, target_scores
from imagexplain.errors import ArgumentError, UnsupportedModelError

Composite = Literal["epsilon", "epsilon_gamma", "epsilon_plus"]

STABILIZER = 1e-6
"""Amount by which sums are moved away from 0 before they divide relevance, in all rules but ε."""

MOVES = frozenset(
    (
        *("view", "view_as", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "squeeze"),
        *("unsqueeze", "contiguous", "clone", "copy", "to", "type", "float", "double", "expand", "cat", "concat"),
        *("stack", "split", "chunk", "unbind", "narrow", "select", "index_select", "getitem", "get", "masked_fill"),
        *("pad", "flip", "roll", "dropout", "dropout1d", "dropout2d", "dropout3d", "pixel_shuffle"),
        *("pixel_unshuffle", "channel_shuffle", "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d"),
        *("adaptive_max_pool2d", "amax"),
    )
)
"""Names of functions, without underscores, that hand each value on as it is, or the largest of several: relevance goes
as a gradient does."""

AVERAGES = frozenset(
    (
        *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
        *("adaptive_avg_pool3d", "mean", "sum", "interpolate"),
    )
)
"""Names of functions whose results are sums of their values by constant weights."""

TERMS = {"add": 1, "radd": 1, "iadd": 1, "sub": -1, "subtract": -1, "isub": -1}
"""Names of functions of two terms, without underscores, each with the second one's sign."""

FACTORS = frozenset(("mul", "rmul", "imul", "multiply", "neg", "rsub"))
"""Names of functions, without underscores, that scale a value by a constant, or take it from one."""

DIVISIONS = frozenset(("div", "divide", "true_divide", "truediv", "itruediv"))
"""Names of functions, without underscores, that scale their first argument by a constant."""

IN_PLACE = frozenset(("add_", "sub_", "__iadd__", "__isub__"))
"""Names of functions that write a sum into their first term."""

Part = tuple[Tensor, Tensor, Tensor | None]
"""Values that a layer gets, its weights and its biases, as a rule changes them."""


@register(
    family="gradients",
    needs={"gradients", "nonlinearities"},
    gradient_passes=lambda work: 3,
    speckled=True,
)
@isolated
def lrp(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    composite: Composite = "epsilon_gamma",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
) -> Tensor:
    """LRP: R_i = Σ_j (x_i w_ij / Σ_k x_k w_kj) R_j from layer to layer, by a rule for each kind of layer.

    The score is what is handed back first. With z_j = Σ_k x_k w_kj + b_j, the rules are

    - ε: x_i w_ij / (z_j + ε sign z_j);
    - z⁺: of x_i w_ij and b_j only what is positive, in numerator and denominator;
    - γ: what has the sign of z_j counts 1 + γ times.

    A batch norm behind a convolution is a part of it, any other hands its relevance on, as activations do. Sums of two
    branches and means divide it in proportion, a maximum gives it to the winner. The calls of functions are looked at
    while the model runs, not modules, so that a ReLU that runs twice, or in place, is like any other. The model is not
    touched.

    Args:
        model: Module or function from (B, C, H, W) to pre-softmax scores (B, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        composite: Rules: "epsilon" for ε everywhere, "epsilon_gamma" for γ and "epsilon_plus" for z⁺ in convolutions,
            with ε in linear layers.
        epsilon: Amount ε, above 0.
        gamma: Factor γ, at least 0, of "epsilon_gamma"; 0 is the ε rule.

    Returns:
        (B, C, H, W), signed, in units of the score. It sums to the score less what biases have taken.

    Raises:
        UnsupportedModelError: a model with other parts, such as attention, layer or group norms, products of two
            branches (squeeze and excitation), of which these rules say nothing.
        ArgumentError: other arguments that do not fit, by name.

    Source: Bach et al. 2015, PLOS ONE 10(7); composites: Montavon et al. 2019, "Layer-Wise Relevance Propagation: An
    Overview", and Kohlbrenner et al. 2020, arXiv 1910.09840; γ for values of both signs: Andéol et al. 2021, arXiv
    2104.08972. Own, because Captum's rules see only modules of a few kinds, count a shortcut twice and have no rule by
    kind of layer.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import lrp
        >>> first, last = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(144, 5, bias=False)
        >>> network = nn.Sequential(first, nn.ReLU(), nn.Flatten(), last)
        >>> images = rand(2, 3, 8, 8)
        >>> maps = lrp(network, images, targets=3)
        >>> allclose(maps.sum((1, 2, 3)), network(images)[:, 3], atol=1e-3)
        True
    """
    if composite not in ("epsilon", "epsilon_gamma", "epsilon_plus"):
        raise ArgumentError("composite", f"wanted epsilon, epsilon_gamma or epsilon_plus, got {composite!r}")
    if not 0 < epsilon < float("inf"):
        raise ArgumentError("epsilon", f"wanted a number above 0, got {epsilon}")
    if not 0 <= gamma < float("inf"):
        raise ArgumentError("gamma", f"wanted a number of at least 0, got {gamma}")
    check_visible(model, "nonlinearities")
    check_images(images)
    inputs = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        with _Propagation(_Rules(composite, epsilon, gamma)):
            scores = class_scores(model, inputs)
        score = target_scores(scores, targets)
    check_graph(score.requires_grad)
    (relevance,) = torch.autograd.grad(score, inputs, grad_outputs=score.detach())
    return relevance


@dataclass(frozen=True)
class _Layer:
    """A layer as a function of values, weights and biases; its weights' output channels come at a dimension."""

    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    weight: Tensor
    bias: Tensor | None
    convolves: bool
    outputs: int | None
    """Dimension of the weights' output channels; None where groups are within them, or where the results' channels,
    which a batch norm scales, are others."""

    def scaled(self, scale: Tensor, shift: Tensor) -> _Layer | None:
        """The layer with each output channel scaled and shifted; None where that is no change of its weights."""
        if self.outputs is None:
            return None
        shape = [1] * self.weight.ndim
        shape[self.outputs] = -1
        bias = shift if self.bias is None else shift + scale * self.bias
        return _Layer(self.function, self.weight * scale.view(shape), bias, self.convolves, self.outputs)


@dataclass(frozen=True)
class _Rules:
    """Rules of one composite."""

    composite: Composite
    epsilon: float
    gamma: float

    def back(self, layer: _Layer, values: Tensor, relevance: Tensor) -> Tensor:
        """Relevance of a layer's values, given that of its results."""
        if not layer.convolves or self.composite == "epsilon":
            return _divided(layer.function, [(values, layer.weight, layer.bias)], relevance, self.epsilon)
        if self.composite == "epsilon_plus":
            return _divided(layer.function, _parts(layer, values, 1, 0, 1), relevance, STABILIZER)
        result = layer.function(values, layer.weight, layer.bias)
        found = torch.zeros_like(values)
        for sign in (1, -1):
            own = relevance.where(result * sign > 0, 0)
            if own.any():  # behind a ReLU, a negative result gets nothing
                found = found + _divided(layer.function, _parts(layer, values, sign, 1, self.gamma), own, STABILIZER)
        return found


def _parts(layer: _Layer, values: Tensor, sign: int, whole: float, more: float) -> list[Part]:
    """Parts of a layer's sums: all contributions ``whole`` times, and those of one sign ``more`` times besides."""

    def changed(weight: Tensor, sign: int) -> Tensor:
        return whole * weight + more * (weight.clamp(min=0) if sign > 0 else weight.clamp(max=0))

    bias = None if layer.bias is None else changed(layer.bias, sign)
    parts: list[Part] = [(values.clamp(min=0), changed(layer.weight, sign), bias)]
    low = values.clamp(max=0)
    return [*parts, (low, changed(layer.weight, -sign), None)] if low.any() else parts


def _divided(function: Callable[..., Tensor], parts: Sequence[Part], relevance: Tensor, epsilon: float) -> Tensor:
    """Relevance of the values of several parts whose results add up, in proportion to what each adds."""
    inputs = [values.detach().requires_grad_() for values, _, _ in parts]
    with torch.enable_grad():
        total = reduce(torch.add, [function(x, w, b) for x, (_, w, b) in zip(inputs, parts, strict=True)])
        slopes = torch.autograd.grad(total, inputs, relevance / _stable(total.detach(), epsilon))
    return reduce(torch.add, [x.detach() * slope for x, slope in zip(inputs, slopes, strict=True)])


def _stable(total: Tensor, epsilon: float) -> Tensor:
    """Total moved away from 0 by epsilon."""
    return torch.where(total < 0, total - epsilon, total + epsilon)


class _Handed(torch.autograd.Function):
    """Result of a computation, whose backward pass hands relevance to its values."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], back: Callable[[Tensor], Any], *_: Tensor) -> Tensor:
        ctx.back = back
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.back(relevance[0])
        return (None, None, *(found if isinstance(found, tuple) else (found,)))


class _Propagation(FunctionCalls):
    """Replacement of calls of functions by the same with a rule for relevance."""

    def __init__(self, rules: _Rules) -> None:
        super().__init__()
        self.rules = rules
        self.layers: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # by their results, with what they got

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(function, "__name__", str(function))
        plain = name.strip("_")
        given = [one for one in _flat((*args, *kwargs.values())) if one.requires_grad]
        if not given or plain in MOVES:
            return function(*args, **kwargs)
        values = given[0]
        comes_first = _first(args, kwargs) is values
        if (function in ALL_CONVOLUTIONS or function is F.linear) and len(given) == 1 and comes_first:
            return self._linear(function, *args, **kwargs)
        if function is F.batch_norm:
            return self._normalized(values, args, kwargs)
        if plain in TERMS and len(given) == 2:
            return _sum(TERMS[plain], name in IN_PLACE, *args, **kwargs)
        if name in AVERAGES:
            return _average(function, *args, **kwargs)
        scales = plain in TERMS or plain in FACTORS or (plain in DIVISIONS and comes_first)
        if function in ELEMENTWISE or (len(given) == 1 and scales):
            return _passed(values, function, args, kwargs)
        result = function(*args, **kwargs)
        if any(one.requires_grad for one in _flat((result,))):
            raise _not_such(plain)
        return result

    def _linear(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *rest: Any,
        **options: Any,
    ) -> Tensor:
        """Call a convolution or a linear layer; ``input``, ``weight`` and ``bias`` are their own names."""
        values = input.detach().clone()  # what follows in the model may overwrite it
        outputs: int | None = 0 if function is not F.linear or values.ndim == 2 else None
        if "transpose" in function.__name__:
            outputs = 1 if options.get("groups", rest[3] if len(rest) > 3 else 1) == 1 else None
        layer = _Layer(
            lambda x, w, b: function(x, w, b, *rest, **options),
            weight.detach(),
            None if bias is None else bias.detach(),
            convolves=function is not F.linear,
            outputs=outputs,
        )
        result: Tensor = _Handed.apply(
            lambda: layer.function(values, layer.weight, layer.bias),
            lambda relevance: self.rules.back(layer, values, relevance),
            input,
        )
        if result.requires_grad:  # which in inference mode it does not
            self.layers[result] = (layer, values, input, result._version)
        return result

    def _normalized(self, values: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a batch norm, which is a part of the layer whose result it gets."""
        scale, shift = _scale_and_shift(*args, **kwargs)
        layer, given, source, version = self.layers.get(values, (None, None, None, None))
        merged = None if layer is None or version != values._version else layer.scaled(scale, shift)
        if merged is None:
            return _passed(values, F.batch_norm, args, kwargs)
        detached = _mapped(args, Tensor.detach), {name: _mapped(value, Tensor.detach) for name, value in kwargs.items()}
        return _Handed.apply(
            lambda: F.batch_norm(*detached[0], **detached[1]),
            lambda relevance: self.rules.back(merged, given, relevance),
            source,
        )


def _scale_and_shift(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Factor and term (K,) of a batch norm, from the arguments that it was called with."""
    if training or running_mean is None or running_var is None:
        raise _not_such("a batch norm with statistics of its batch")
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    return scale.detach(), (shift if bias is None else shift + bias).detach()


def _passed(values: Tensor, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function that gives each value on, changed, with the relevance of its result."""
    copy = values.detach().clone()

    def own(value: Tensor) -> Tensor:
        return copy if value is values else value.detach()

    computed = function(*_mapped(args, own), **{name: _mapped(value, own) for name, value in kwargs.items()})
    shape = values.shape
    result = _Handed.apply(lambda: computed, lambda relevance: relevance.sum_to_size(shape), values)
    return values.copy_(result) if computed is copy else result


def _average(function: Callable[..., Tensor], input: Tensor, *rest: Any, **options: Any) -> Any:
    """Call a function whose results are sums of its values by constant weights."""
    values = input.detach().clone()

    def averaged(x: Tensor, *_: object) -> Tensor:
        return function(x, *rest, **options)

    parts: list[Part] = [(values, values, None)]
    return _Handed.apply(
        lambda: averaged(values), lambda relevance: _divided(averaged, parts, relevance, STABILIZER), input
    )


def _sum(sign: int, in_place: bool, input: Tensor, other: Tensor, *, alpha: float = 1) -> Any:
    """Add or subtract two terms that both depend on the image."""
    terms = input.detach(), sign * alpha * other.detach()
    total = terms[0] + terms[1]
    shares = [(term / _stable(total, STABILIZER), term.shape) for term in terms]

    def back(relevance: Tensor) -> tuple[Tensor, ...]:
        return tuple((share * relevance).sum_to_size(shape) for share, shape in shares)

    result = _Handed.apply(lambda: total, back, input, other)
    return input.copy_(result) if in_place else result


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("input")


def _flat(values: Any) -> list[Tensor]:
    """Tensors of arguments or results, those in lists and tuples too."""
    if isinstance(values, Tensor):
        return [values]
    return [one for value in values for one in _flat(value)] if isinstance(values, tuple | list) else []


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Value with its tensors changed, in a tuple too."""
    if isinstance(value, tuple):
        return tuple(_mapped(one, change) for one in value)
    return change(value) if isinstance(value, Tensor) else value


def _not_such(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "model",
        "wanted one of convolutions, linear layers, batch norms, activations, pools and sums, whose rules are known, "
        f"got {what}",
    )
