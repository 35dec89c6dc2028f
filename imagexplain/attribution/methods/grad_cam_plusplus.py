"""Grad-CAM++: channels weighted by their positive gradients, relative to higher derivatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map, weighted
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer
from imagexplain.attribution.quotients import quotient
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets


@register(
    family="class activation",
    needs={"gradients", "module"},
    coarse=True,
    peer=Peer("pytorch-grad-cam", "GradCAMPlusPlus", "the peer adds 1e-6 to a denominator of squared gradients"),
)
@isolated
def grad_cam_plusplus(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Grad-CAM++: channels weighted by positive gradients (Chattopadhay et al. 2018, arXiv 1710.11063, eq. 19).

    Arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`.

    The paper's Y = exp(y) multiplies an image's whole map by exp(y), which is left out as in the authors' code.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import grad_cam_plusplus
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = grad_cam_plusplus(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    return activation_map(_rule, model, images, targets, layer, upsample, create_graph)


def _rule(activation: Tensor, gradient: Tensor) -> Tensor:
    # g² / (2g² + ΣA · g³), reduced by g²: where g is small, its powers are no longer numbers. Only positive g count.
    share = quotient(torch.ones_like(gradient), 2 + activation.sum((2, 3), keepdim=True) * gradient)
    return weighted(activation, (share * gradient.relu()).sum((2, 3)))
