"""DeepLIFT: score differences from a baseline, carried back through each non-linearity as a ratio of differences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.completeness import LARGEST_SHARE, missing_share
from imagexplain.attribution.network.forward import class_scores, isolated
from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.paths.path_integral import Forward, check_ends, score_gradients
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check_images, classes_to_explain, target_scores
from imagexplain.errors import UnsupportedModelError

ELEMENTWISE = {
    *(
        F.relu,
        F.relu_,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
        F.relu6,
        F.leaky_relu,
        F.elu,
        F.selu,
        F.celu,
    ),
    *(F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.hardsigmoid, F.hardtanh, F.logsigmoid),
    *(
        torch.sigmoid,
        torch.sigmoid_,
        Tensor.sigmoid,
        Tensor.sigmoid_,
        torch.tanh,
        torch.tanh_,
        Tensor.tanh,
        Tensor.tanh_,
    ),
}
POOLS = {F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d}


@register(
    family="gradients",
    needs={"gradients", "nonlinearities"},
    gradient_passes=lambda work: 2 * work.draws,  # by time: the baselines' pass and the rules take as long as another
    speckled=True,
    peer=Peer("Captum", "DeepLift", "Captum's maps miss the score where a pool's windows overlap"),
)
@isolated
def deep_lift(model: Forward, images: Tensor, targets: Targets = None, *, baselines: Tensor | None = None) -> Tensor:
    """DeepLIFT by the rescale rule: the gradient with Δout/Δin in place of each non-linearity's derivative.

    The baselines run first, without a graph. Then the images do, and calls of the functions that have a rule are
    replaced, each beside the same call of the baselines: as modules, functions or methods, in place or not, once or
    many times. The model is not touched. A maximum over windows gives what it gained to the image's winner, and what
    it lost to the baseline's.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        baselines: Baselines (B, C, H, W) with which the images are compared; zeros by default.

    Returns:
        (B, C, H, W), signed, in units of the score; sums to f(x) − f(b).

    Raises:
        ValueError: a model with non-linearities that have no rule (attention, layer normalisation), whose maps do not
            add up; or images, baselines or targets that do not fit.

    Source: Shrikumar, Greenside, Kundaje 2017, arXiv 1704.02685; as gradients: Ancona et al. 2018,
    arXiv 1711.06104. Own, because Captum's rules see only modules that run once, pass the plain gradient through all
    else, and miss the score where a pool's windows overlap or it stands next to another non-linearity.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import deep_lift
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> maps = deep_lift(network, images, targets=3)
        >>> allclose(maps.sum((1, 2, 3)), (network(images) - network(0 * images))[:, 3], atol=1e-5)
        True
    """
    check_visible(model, "nonlinearities")
    check_images(images)
    begin = torch.zeros_like(images) if baselines is None else baselines.detach()
    check_ends(images, begin)
    classes = classes_to_explain(model, images, targets, max(1, len(images)))
    with torch.no_grad(), _Noting() as baseline:
        begin_scores = target_scores(class_scores(model, begin), classes)
    with _Rescaling(baseline.calls):
        scores, multipliers = score_gradients(model, images, classes)
    if baseline.calls:
        raise _other_way()
    maps = (images.detach() - begin) * multipliers
    missing = missing_share(scores - begin_scores, [maps], (scores, begin_scores)).max().item()
    if not missing <= LARGEST_SHARE:
        raise UnsupportedModelError(
            "model", f"wanted only non-linearities that have a rule, got maps that miss {missing:.2%} of the score"
        )
    return maps


class _Call(NamedTuple):
    """Call of a function that has a rule: the function, and a copy of what it was given."""

    function: Callable[..., Tensor]
    values: Tensor


class _Noting(FunctionCalls):
    """Recorder of the calls that have a rule, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: deque[_Call] = deque()

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function in ELEMENTWISE or function in POOLS:
            values = args[0] if args else kwargs["input"]
            self.calls.append(_Call(function, values.clone()))  # what follows in the model may overwrite them
        return function(*args, **kwargs)


class _Rescaling(FunctionCalls):
    """Replacement of the images' calls that have a rule by :class:`_Rescaled`, each beside the baselines' same call."""

    def __init__(self, baseline: deque[_Call]) -> None:
        super().__init__()
        self.baseline = baseline

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function not in ELEMENTWISE and function not in POOLS:
            return function(*args, **kwargs)
        kwargs = dict(kwargs)
        values, *options = args or (kwargs.pop("input"),)
        same = self.baseline.popleft() if self.baseline else None
        if same is None or same.function is not function or same.values.shape != values.shape:
            raise _other_way()
        return _Rescaled.apply(values, same.values, partial(_called, function, options, kwargs), function in POOLS)


def _other_way() -> UnsupportedModelError:
    return UnsupportedModelError("model", "wanted one that calls the same functions for images as for baselines")


def _called(function: Callable[..., Any], options: list[Any], named: dict[str, Any], values: Tensor) -> Tensor:
    result: Tensor = function(values, *options, **named)
    return result


class _Rescaled(torch.autograd.Function):
    """Function of the images' values, whose backward pass is the rescale rule beside the baselines' values."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, baseline: Tensor, function: Callable[[Tensor], Tensor], pools: bool
    ) -> Tensor:
        ctx.values, ctx.baseline = values.detach().clone(), baseline  # what follows may overwrite the values
        ctx.function, ctx.pools = function, pools
        result = function(values)
        ctx.in_place = result is values
        if ctx.in_place:
            ctx.mark_dirty(values)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), values, baseline = gradients, ctx.values.requires_grad_(), ctx.baseline
        with torch.enable_grad():
            result = ctx.function(values.clone() if ctx.in_place else values)
        (plain,) = torch.autograd.grad(result, values, gradient, retain_graph=ctx.pools)
        size = torch.maximum(values.detach().abs(), baseline.abs())  # of what rounds in a difference
        if ctx.pools:
            with torch.enable_grad():
                baseline_result = ctx.function(baseline.requires_grad_())
            top = torch.maximum(result, baseline_result).detach()
            # What the maximum gained goes to the image's winner, what it lost to the baseline's.
            (change,) = torch.autograd.grad(result, values, gradient * (top - baseline_result.detach()))
            change += torch.autograd.grad(baseline_result, baseline, gradient * (result.detach() - top))[0]
        else:
            result, baseline_result = result.detach(), ctx.function(baseline.clone() if ctx.in_place else baseline)
            change = (result - baseline_result).mul_(gradient)
            for of_result in (result, baseline_result):
                torch.maximum(size, of_result.abs(), out=size)
        difference = values.detach() - baseline.detach()
        # A ratio of rounding errors says nothing; there the derivative is the ratio's limit.
        tells = difference.abs() > size.mul_(8 * torch.finfo(size.dtype).eps)
        return torch.where(tells, change.div_(difference), plain), None, None, None
