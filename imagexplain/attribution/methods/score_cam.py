"""Score-CAM: channels weighted by the score of the image where they let it through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import channel_masks, shown, weighted
from imagexplain.attribution.network.forward import isolated, rows_at_once, scores_of_copy
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of, target_scores
from imagexplain.errors import ArgumentError


@register(
    family="class activation",
    needs={"module"},
    forward_passes=lambda work: work.channels,
    by_channel=True,
    coarse=True,
    tried_by="grad_cam",
    peer=Peer("pytorch-grad-cam", "ScoreCAM", "the peer resizes channels with align_corners=True"),
)
@isolated
@torch.no_grad()
def score_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    chunk: int = 32,
) -> Tensor:
    """Score-CAM: Σ_k w_k A_k with w = softmax over the channels of y(x ⊙ s(A_k)), ReLU'd.

    s resizes A_k to the image (bilinear, ``align_corners=False``; the paper does not say) and scales it to 0..1; a
    channel that is the same everywhere shows nothing. The score of the baseline, which the paper subtracts, cancels in
    the softmax. No gradient is taken: there are K further evaluations an image.

    Args:
        model, images, targets, layer, upsample: Arguments that all class activation maps share, see
            :mod:`imagexplain.attribution.class_activation_maps`.
        chunk: Largest number of masked images evaluated at once; no more than these are in memory.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

    Raises:
        ValueError: as in :mod:`imagexplain.attribution.class_activation_maps`, or a chunk below 1.

    Source: Wang et al. 2020, arXiv 1910.01279, algorithm 1. Own, for Captum has no such method.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import score_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = score_cam(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    if chunk < 1:
        raise ArgumentError("chunk", f"wanted at least 1, got {chunk}")
    module = chosen_layer(model, images, layer)
    scores, activation = scores_and_activation(model, images, module)
    classes = classes_of(scores, targets)
    maps = stated_layout(model, module, activation.shape, images.shape).maps(activation).detach()
    count, channels = maps.shape[:2]
    masked, size = [], rows_at_once(count * channels, chunk, images)
    for rows in torch.arange(count * channels, device=images.device).split(size):
        owner = rows // channels
        masks = channel_masks(maps[owner, rows % channels], images)
        masked.append(target_scores(scores_of_copy(model, images[owner] * masks), classes[owner]))
    return shown(weighted(maps, torch.cat(masked).view(count, channels).softmax(1)), images, upsample)
