"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map, by_mean_gradient
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
    """Grad-CAM: channels weighted by their mean gradient (Selvaraju et al. 2017, arXiv 1610.02391, eq. 1, 2).

    Arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import grad_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> grad_cam(network, rand(2, 3, 8, 8), targets=[1, 4]).shape
        torch.Size([2, 1, 8, 8])
        >>> grad_cam(network, rand(2, 3, 8, 8), targets=[1, 4], layer="0", upsample=False).shape
        torch.Size([2, 1, 6, 6])
    """
    return activation_map(by_mean_gradient, model, images, targets, layer, upsample, create_graph)
