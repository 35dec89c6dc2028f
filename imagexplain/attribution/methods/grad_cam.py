"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map, weighted
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets


@register(
    family="class activation", needs={"gradients", "module"}, coarse=True, peer=Peer("pytorch-grad-cam", "GradCAM")
)
@isolated
def grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient (Selvaraju et al. 2017, arXiv 1610.02391, eq. 1, 2)."""
    return activation_map(_rule, model, images, targets, layer, upsample, create_graph)


def _rule(activation: Tensor, gradient: Tensor) -> Tensor:
    return weighted(activation, gradient.mean((2, 3)))
