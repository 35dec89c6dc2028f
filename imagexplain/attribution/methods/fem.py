"""FEM: the feature-based explanation method, places where channels are unusually high."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import shown, weighted
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of
from imagexplain.errors import ArgumentError


@register(
    family="class activation",
    needs={"module"},
    coarse=True,
    tried_by="grad_cam",
    peer=Peer("pytorch-grad-cam", "FEM", "the peer weights each channel itself by the mask's share of the places"),
)
@isolated
@torch.no_grad()
def fem(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    deviations: float = 2.0,
    layer: Layer = None,
    upsample: bool = True,
) -> Tensor:
    """FEM: Σ_k μ_k [A_k > μ_k + d σ_k], the same for every class.

    μ_k and σ_k are mean and standard deviation of a channel over its places; a channel that is the same everywhere
    shows nothing. Targets are only checked. Arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`, and:

    Args:
        model, images, targets, layer, upsample: Arguments that all class activation maps share.
        deviations: Number d of standard deviations above the mean from which on a value is unusual.

    Raises:
        ValueError: as all class activation maps, or a negative number of deviations.

    Source: Fuad et al. 2020, "Features Understanding in 3D CNNs for Actions Recognition in Video", IPTA, section III.
    pytorch_grad_cam's FEM is Σ_k A_k mean[A_k > μ_k + d σ_k], another map.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import fem
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = fem(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    if not 0 <= deviations < float("inf"):
        raise ArgumentError("deviations", f"wanted a number of at least 0, got {deviations}")
    module = chosen_layer(model, images, layer)
    scores, activation = scores_and_activation(model, images, module)
    classes_of(scores, targets)
    maps = stated_layout(model, module, activation.shape, images.shape).maps(activation.detach())
    mean, deviation = maps.mean((2, 3)), maps.std((2, 3), correction=0)
    limit = (mean + deviations * deviation)[..., None, None]
    varies = maps.amax((2, 3), keepdim=True) > maps.amin((2, 3), keepdim=True)  # a mean may round below equal values
    return shown(weighted(((maps > limit) & varies).to(maps), mean), images, upsample)
