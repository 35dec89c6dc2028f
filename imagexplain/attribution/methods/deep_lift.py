"""DeepLIFT: score differences from a baseline, carried back through each non-linearity as a ratio of differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.completeness import LARGEST_SHARE, missing_share
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.paths.path_integral import Forward, check_ends, score_gradients
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_to_explain
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
    gradient_passes=lambda work: 3 * work.draws,
    speckled=True,
    peer=Peer("Captum", "DeepLift", "Captum's maps miss the score where a pool's windows overlap"),
)
@isolated
def deep_lift(model: Forward, images: Tensor, targets: Targets = None, *, baselines: Tensor | None = None) -> Tensor:
    """DeepLIFT by the rescale rule: the gradient with Δout/Δin in place of each non-linearity's derivative.

    Images and baselines run together, and calls of the functions that have a rule are replaced while the model runs:
    as modules, functions or methods, in place or not, once or many times. The model is not touched. A maximum over
    windows gives what it gained to the image's winner, and what it lost to the baseline's.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space; twice as many rows are evaluated at once.
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
    classes = classes_to_explain(model, images, targets, max(1, len(images)))
    begin = torch.zeros_like(images) if baselines is None else baselines.detach()
    check_ends(images, begin, classes)
    with _Rescaling():
        scores, multipliers = score_gradients(model, torch.cat([images, begin]), classes.repeat(2))
    maps = (images.detach() - begin) * multipliers[: len(images)]
    ends = scores.split(len(images))
    missing = missing_share(ends[0] - ends[1], [maps], ends).max().item()
    if not missing <= LARGEST_SHARE:
        raise UnsupportedModelError(
            "model", f"wanted only non-linearities that have a rule, got maps that miss {missing:.2%} of the score"
        )
    return maps


class _Rescaled(torch.autograd.Function):
    """Function of rows, first the images' and then the baselines', whose backward pass is the rescale rule."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor], pools: bool) -> Tensor:
        ctx.values = values.detach().clone()  # what follows in the model may overwrite them
        ctx.function, ctx.pools = function, pools
        return function(ctx.values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        values = ctx.values.requires_grad_()
        with torch.enable_grad():
            results = ctx.function(values)
        (plain,) = torch.autograd.grad(results, values, gradients[0], retain_graph=ctx.pools)
        (image, baseline), (image_result, baseline_result) = values.detach().chunk(2), results.detach().chunk(2)
        if ctx.pools:
            top = torch.maximum(image_result, baseline_result)
            parts = torch.cat([top - baseline_result, image_result - top])  # gained by the one, lost by the other
            (winners,) = torch.autograd.grad(results, values, gradients[0] * parts)
            change = torch.stack(winners.chunk(2)).sum(0, keepdim=True)  # (1, B, …), the same for both
        else:
            change = gradients[0].unflatten(0, (2, -1)) * (image_result - baseline_result)  # (2, B, …)
        difference = image - baseline
        # A ratio of rounding errors says nothing; there the derivative is the ratio's limit.
        tells = difference.abs() > 8 * torch.finfo(values.dtype).eps * _size(values, None if ctx.pools else results)
        return torch.where(tells, change / difference, plain.unflatten(0, (2, -1))).flatten(0, 1), None, None


def _size(values: Tensor, results: Tensor | None) -> Tensor:
    """Largest of what rounds in a difference of images and baselines, and in that of their results; for each."""
    sizes = values.detach().abs()
    if results is not None:
        torch.maximum(sizes, results.detach().abs(), out=sizes)
    return torch.maximum(*sizes.chunk(2))


class _Rescaling(FunctionCalls):
    """Replacement of calls of the functions that have a rule by :class:`_Rescaled`."""

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs = dict(kwargs)
        if function not in ELEMENTWISE and function not in POOLS:
            return function(*args, **kwargs)
        values, *options = args or (kwargs.pop("input"),)
        copy = values.detach().clone()
        in_place = function(copy, *options, **kwargs) is copy
        result = _Rescaled.apply(values, lambda rows: function(rows.clone(), *options, **kwargs), function in POOLS)
        return values.copy_(result) if in_place else result
