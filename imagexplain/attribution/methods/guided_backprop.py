"""Guided backpropagation: the gradient with every ReLU letting back only what supports the class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets
from imagexplain.errors import UnsupportedModelError

RELUS = {F.relu, torch.relu, Tensor.relu}
RELUS_IN_PLACE = {F.relu_, torch.relu_, Tensor.relu_}


@register(
    family="gradients",
    needs={"gradients", "nonlinearities"},
    speckled=True,
    sensitivity=True,
    peer=Peer("Captum", "GuidedBackprop"),
)
@isolated
def guided_backprop(model: Forward, images: Tensor, targets: Targets = None) -> Tensor:
    """Guided backpropagation: the gradient of the target's score in which each ReLU drops what comes back negative.

    The calls of ReLU are replaced while the model runs, not its modules: nn.ReLU, in place or not, and the functions
    and tensor methods are alike, and the model is not touched. ReLUs inside compiled or scripted code are not seen.
    One with an upper bound, as ReLU6, is one too, and lets nothing back where it is at the bound.

    Args:
        model: Module or function from (B, C, H, W) to pre-softmax scores (B, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.

    Returns:
        (B, C, H, W), signed; not a gradient of any score.

    Raises:
        ValueError: no ReLU was called, so that the method does not support the model (it would be the plain
            gradient); or what does not fit the model.

    Source: Springenberg et al. 2014, arXiv 1412.6806. Own, because Captum sees only nn.ReLU modules and
    hooks them.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import guided_backprop
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> guided_backprop(network, rand(2, 3, 8, 8), targets=[1, 4]).shape
        torch.Size([2, 3, 8, 8])
    """
    check_visible(model, "nonlinearities")
    with GuidedReLUs() as relus:
        maps = gradient(model, images, targets)
    relus.check_seen()
    return maps


class _GuidedReLU(torch.autograd.Function):
    """ReLU, with an upper bound or without, whose backward pass is a ReLU of what the plain one would pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, inplace: bool, bound: float, guided: Callable[[], bool]) -> Tensor:
        if inplace:
            ctx.mark_dirty(values)
        result = values.relu_() if inplace else values.relu()
        if bound < torch.inf:
            result = result.clamp_(max=bound)
        ctx.save_for_backward(result)
        ctx.bound, ctx.guided = bound, guided
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (result,) = gradients, ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradient.relu() if ctx.guided() else gradient, result, 0)
        return passed if ctx.bound == torch.inf else passed.masked_fill(result >= ctx.bound, 0), None, None, None


class GuidedReLUs(FunctionCalls):
    """Replacement of calls of ReLU by :class:`_GuidedReLU`.

    Attributes:
        seen: Sign that there were any.
        guided: Switch to the guided backward pass; the plain one otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.guided = False, True

    def check_seen(self) -> None:
        """Raise UnsupportedModelError unless there were any."""
        if not self.seen:
            raise UnsupportedModelError(
                "model", "wanted one with ReLUs, without which guided backpropagation has no meaning, got none"
            )

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function in RELUS or function in RELUS_IN_PLACE:
            self.seen = True
            values, inplace = _arguments(*args, **kwargs)
            return self._apply(values, inplace or function in RELUS_IN_PLACE, torch.inf)
        if function is F.relu6:
            self.seen = True
            return self._apply(*_arguments(*args, **kwargs), 6.0)
        if function is F.hardtanh:
            values, low, high, inplace = _hardtanh_arguments(*args, **kwargs)
            if low == 0:  # as nn.ReLU6 calls it
                self.seen = True
                return self._apply(values, inplace, high)
        return function(*args, **kwargs)

    def _apply(self, values: Tensor, inplace: bool, bound: float) -> Any:
        return _GuidedReLU.apply(values, inplace, bound, lambda: self.guided)


def _arguments(input: Tensor, inplace: bool = False) -> tuple[Tensor, bool]:
    """Arguments that any of the ReLUs was called with; ``input`` is their own name of the tensor."""
    return input, inplace


def _hardtanh_arguments(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> tuple[Tensor, float, float, bool]:
    """Arguments that a hard tanh was called with."""
    return input, min_val, max_val, inplace
