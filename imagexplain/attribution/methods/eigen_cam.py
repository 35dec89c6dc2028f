"""Eigen-CAM: the first principal component of a layer's channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import shown
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.principal_component import first_component
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of


@register(
    family="class activation",
    needs={"module"},
    coarse=True,
    peer=Peer("pytorch-grad-cam", "EigenCAM", "the peer leaves the component's sign to chance"),
)
@isolated
def eigen_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Eigen-CAM: A's first principal component, the same for every class (Muhammad, Yeasin 2020, arXiv 2008.00299).

    A is the output of the layer; arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`.

    Channels are centred first. Of the two signs the component gets that of the mean activation's part in it; where
    that is 0, as behind a plain layer norm, its largest value is positive. Targets are only checked.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import eigen_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> eigen_cam(network, images, targets=1).equal(eigen_cam(network, images, targets=4))
        True
    """
    module = chosen_layer(model, images, layer)
    with torch.set_grad_enabled(create_graph):
        scores, activation = scores_and_activation(model, images, module, create_graph=create_graph)
        classes_of(scores, targets)
        component = first_component(stated_layout(model, module, activation.shape, images.shape).maps(activation))
        return shown(component, images, upsample, create_graph)
