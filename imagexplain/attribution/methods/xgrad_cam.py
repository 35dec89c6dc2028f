"""XGrad-CAM: channels weighted by their gradients, averaged over the activation's mass."""

from __future__ import annotations

from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map, weighted
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer
from imagexplain.attribution.quotients import quotient
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets


@register(
    family="class activation", needs={"gradients", "module"}, coarse=True, peer=Peer("pytorch-grad-cam", "XGradCAM")
)
@isolated
def xgrad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """XGrad-CAM: weights are gradients averaged over A_k's mass (Fu et al. 2020, arXiv 2008.02312).

    A is the layer's output and G the gradient of the target's score by it; arguments, result and errors are those of
    all class activation maps, see :mod:`imagexplain.attribution.class_activation_maps`.

    A channel that sums to 0 gets the weight 0.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import grad_cam, xgrad_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images = rand(2, 3, 8, 8)
        >>> allclose(xgrad_cam(network, images, 1), grad_cam(network, images, 1), atol=1e-6)  # before a global mean
        True
    """
    return activation_map(_rule, model, images, targets, layer, upsample, create_graph)


def _rule(activation: Tensor, gradient: Tensor) -> Tensor:
    return weighted(activation, quotient((gradient * activation).sum((2, 3)), activation.sum((2, 3))))
