"""Ablation-CAM: channels weighted by what the score loses without them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import shown, weighted
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer
from imagexplain.attribution.network.partial_forward import split_at
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of, target_scores
from imagexplain.errors import ArgumentError

LEAST_SCORE = 1e-6
"""Least divisor of a drop, as the score itself may be 0."""


@register(
    family="class activation",
    needs={"module"},
    forward_passes=lambda work: work.channels,
    by_channel=True,
    coarse=True,
    tried_by="grad_cam",
    peer=Peer(
        "pytorch-grad-cam", "AblationCAM", token_note="the peer ablates by −1e7 where the layer's least value is not 0"
    ),
)
@isolated
@torch.no_grad()
def ablation_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    chunk: int = 32,
) -> Tensor:
    """Ablation-CAM: Σ_k w_k A_k with w_k = (y − y without channel k) / |y|, ReLU'd.

    A channel is removed by zeros in its place; in a layer of tokens in all of them, prefix tokens included. The paper
    divides by y, which is the same for positive scores; a negative one would turn the map into its opposite. |y| counts
    as 1e-6 at least. No gradient is taken: there are K further evaluations an image, where possible of what follows the
    layer only (:func:`imagexplain.attribution.network.partial_forward.split_at`).

    Args:
        model, images, targets, layer, upsample: Arguments that all class activation maps share, see
            :mod:`imagexplain.attribution.class_activation_maps`.
        chunk: Largest number of ablated rows evaluated at once.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

    Raises:
        ValueError: as in :mod:`imagexplain.attribution.class_activation_maps`, or a chunk below 1.

    Source: Desai, Ramaswamy, WACV 2020. Own, for Captum has no such method.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import ablation_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = ablation_cam(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    if chunk < 1:
        raise ArgumentError("chunk", f"wanted at least 1, got {chunk}")
    module = chosen_layer(model, images, layer)
    rest = split_at(model, images, module)
    classes, activation = classes_of(rest.scores, targets), rest.activation
    layout = stated_layout(model, module, activation.shape, images.shape)
    count, channels = len(images), activation.shape[layout.channels]
    lacking = []
    for image in range(count):
        for without in torch.arange(channels, device=images.device).split(chunk):
            owner = torch.full_like(without, image)
            ablated = _without(activation[owner], without, layout.channels)
            lacking.append(target_scores(rest.run(owner, ablated), classes[owner]))
    score = target_scores(rest.scores, classes).unsqueeze(1)
    weights = (score - torch.cat(lacking).view(count, channels)) / score.abs().clamp_min(LEAST_SCORE)
    return shown(weighted(layout.maps(activation), weights), images, upsample)


def _without(activation: Tensor, channels: Tensor, dimension: int) -> Tensor:
    """Rows of an activation, each with zeros in one of its channels."""
    kept = activation.movedim(dimension, 1).clone()
    kept[torch.arange(len(kept), device=kept.device), channels] = 0
    return kept.movedim(1, dimension)
