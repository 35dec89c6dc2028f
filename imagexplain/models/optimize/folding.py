"""Folding: all that depends on the weights alone, computed once, before serving, not in every forward pass.

- A weight-standardised convolution becomes a plain one with the standardised filters.
- A batch norm in ``eval()`` is an affine map per channel, y = s·x + t with s = γ / sqrt(σ² + ε) and t = β − s·μ. After
  a convolution it goes into the filters and a bias: s·(W∗x + b) + t = (s·W)∗x + (s·b + t).

The arithmetic is done in float64 and rounded once, so that a folded model differs from the unfolded one by rounding
alone. Where a path point lies within that rounding of a ReLU's kink or of a tie in a max-pool, the gradient is another
one-sided derivative and may differ visibly at that point; so it may between two batch sizes of one model.

Between the two convolutions of a separable convolution there is neither norm nor activation. They stay two: their
product would be a dense k×k convolution, which costs about k² times as much.
"""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from imagexplain.models.classifiers.lanet import FactorizedReduce, LaNet, StandardisedConv2d, standardised
from imagexplain.models.optimize.folded_lanet import FoldedLaNet

if TYPE_CHECKING:
    from timm.layers import StdConv2d


def fold(model: nn.Module) -> nn.Module:
    """Fold a network into a frozen copy with nothing left to recompute: same outputs, same gradients for its input.

    A BiT keeps its modules. A LaNet becomes a :class:`~imagexplain.models.optimize.folded_lanet.FoldedLaNet`: its batch
    norms are gone, and so is the auxiliary head, which only training evaluates.

    Args:
        model: Network from :func:`imagexplain.models.build`; it is left as it is.

    Returns:
        The copy, in ``eval()``, no parameter requiring a gradient.
    """
    folded = copy.deepcopy(model)
    with torch.no_grad():
        for parent in list(folded.modules()):
            _fold_children(parent)
    if isinstance(folded, LaNet):
        hooks, folded = folded._forward_hooks, FoldedLaNet(folded)
        folded._forward_hooks.update(hooks)  # such as its head
    return folded.eval().requires_grad_(False)


def _fold_children(parent: nn.Module) -> None:
    if isinstance(parent, FactorizedReduce):
        _fold_reduce(parent)
    if isinstance(parent, nn.Sequential):
        _fold_sequence(parent)
    for name, child in parent.named_children():
        if isinstance(child, StandardisedConv2d) or _is_timms(child):
            setattr(parent, name, _plain(child, _filters(child), child.bias))


def _fold_sequence(sequence: nn.Sequential) -> None:
    layers = list(sequence.named_children())
    for (conv_name, conv), (norm_name, norm) in pairwise(layers):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(sequence, conv_name, _absorb(conv, *affine(norm)))
            delattr(sequence, norm_name)


def _fold_reduce(reduce: FactorizedReduce) -> None:
    """Fold one norm over the stacked channels of two convolutions: each takes its own half."""
    if isinstance(reduce.bn, nn.BatchNorm2d):
        (scale_1, scale_2), (shift_1, shift_2) = (part.chunk(2) for part in affine(reduce.bn))
        reduce.conv_1 = _absorb(reduce.conv_1, scale_1, shift_1)
        reduce.conv_2 = _absorb(reduce.conv_2, scale_2, shift_2)
        reduce.bn = nn.Identity()


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale s and shift t of a batch norm, each (channels,) float64."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    if not norm.affine:
        scale = 1 / (variance + norm.eps).sqrt()
        return scale, -scale * mean
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * mean


def _absorb(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    bias = shift if conv.bias is None else shift + scale * conv.bias.double()
    return _plain(conv, _filters(conv) * scale[:, None, None, None], bias)


def _is_timms(module: nn.Module) -> TypeGuard[StdConv2d]:
    """Test for a convolution of timm's that standardises its filters; without timm imported, there is none."""
    if "timm" not in sys.modules:
        return False
    from timm.layers import StdConv2d

    return isinstance(module, StdConv2d)


def _filters(conv: nn.Conv2d) -> Tensor:
    """Filters (out, in, H, W), float64, with which the layer convolves, standardised where it standardises."""
    weight = conv.weight.double()
    if isinstance(conv, StandardisedConv2d):
        return standardised(weight, conv.eps)
    if _is_timms(conv):
        variance, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        return (weight - mean) / (variance + conv.eps).sqrt()
    return weight


def _plain(conv: Any, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A plain convolution with the geometry and dtype of this one, and other weights."""
    with torch.device("meta"):
        plain = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias is not None,
        )
    plain.weight = nn.Parameter(weight.to(conv.weight.dtype))
    if bias is not None:
        plain.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return plain
