"""BagCAM: each channel's product of gradient and activation, weighted by its mean."""

from __future__ import annotations

from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets


@register(family="class activation", needs={"gradients", "module"}, coarse=True)
@isolated
def bag_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """BagCAM: Σ_k relu(u_k · G_k ⊙ A_k) with u_k = mean(G_k ⊙ A_k + 1) (Zhu et al. 2022, arXiv 2207.07818).

    A is the layer's output and G the gradient of the target's score by it; arguments, result and errors are those of
    all class activation maps, see :mod:`imagexplain.attribution.class_activation_maps`.

    G is the score's own gradient, as in the other methods. The authors' code takes that of log y, with the backward
    pass of guided backpropagation. u_k is not homogeneous in G, so that their map is not a multiple of this one.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import bag_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = bag_cam(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    return activation_map(_rule, model, images, targets, layer, upsample, create_graph)


def _rule(activation: Tensor, gradient: Tensor) -> Tensor:
    product = gradient * activation
    return (product * (product + 1).mean((2, 3), keepdim=True)).relu().sum(1, keepdim=True)
