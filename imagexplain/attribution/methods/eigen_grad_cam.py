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
    """Eigen-Grad-CAM: the first principal component of G ⊙ A, its sign as in :func:`eigen_cam` (pytorch_grad_cam).

    A is the layer's output and G the gradient of the target's score by it; arguments, result and errors are those of
    all class activation maps, see :mod:`imagexplain.attribution.class_activation_maps`.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import eigen_grad_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = eigen_grad_cam(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    return activation_map(_rule, model, images, targets, layer, upsample, create_graph)


def _rule(activation: Tensor, gradient: Tensor) -> Tensor:
    return first_component(gradient * activation)
