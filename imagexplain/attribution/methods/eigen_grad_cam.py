"""Eigen-Grad-CAM: the first principal component of gradient times activation."""

from __future__ import annotations

from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer
from imagexplain.attribution.principal_component import first_component
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets


@register(
    family="class activation",
    needs={"gradients", "module"},
    coarse=True,
    peer=Peer("pytorch-grad-cam", "EigenGradCAM", "the peer leaves the component's sign to chance"),
)
@isolated
def eigen_grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Eigen-Grad-CAM: the first principal component of G ⊙ A, its sign as in :func:`eigen_cam` (pytorch_grad_cam)."""
    return activation_map(_rule, model, images, targets, layer, upsample, create_graph)


def _rule(activation: Tensor, gradient: Tensor) -> Tensor:
    return first_component(gradient * activation)
