"""SS-CAM: Score-CAM with noise on each channel's mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import channel_masks, shown, weighted
from imagexplain.attribution.network.forward import isolated, rows_at_once, scores_of_copy
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, classes_of, target_scores
from imagexplain.errors import ArgumentError


@register(
    family="class activation",
    needs={"module"},
    forward_passes=lambda work: work.options["samples"] * work.channels,
    by_channel=True,
    coarse=True,
    tried_by="grad_cam",
)
@isolated
@torch.no_grad()
def ss_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    samples: int = 5,
    std: float = 2.0,
    seed: int = 0,
    layer: Layer = None,
    upsample: bool = True,
    chunk: int = 32,
) -> Tensor:
    """SS-CAM: Σ_k w_k A_k with w = softmax over the channels of mean_n y(x ⊙ (s(A_k) + δ_n)), ReLU'd.

    s resizes A_k to the image and scales it to 0..1 as in :func:`imagexplain.score_cam`; δ is normal noise at each
    pixel. The score of the baseline, which the paper subtracts, cancels in the softmax. There are K evaluations an
    image for each sample. Every image gets the same noise. Arguments, result and errors are those of all class
    activation maps, see :mod:`imagexplain.attribution.class_activation_maps`, and:

    Args:
        model, images, targets, layer, upsample: Arguments that all class activation maps share.
        samples: Number of noisy masks of each channel; the paper has 35.
        std: Standard deviation of the noise, of masks between 0 and 1; the paper has 2.
        seed: Seed of the noise.
        chunk: Largest number of masked images evaluated at once; no more than these are in memory.

    Raises:
        ValueError: as all class activation maps, samples or chunk below 1, or a negative deviation.

    Source: Wang et al. 2020, "SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization", arXiv 2006.14255,
    algorithm 1, noise on the masks, as in torchcam. Own, for Captum has no such method.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import ss_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = ss_cam(network, rand(2, 3, 8, 8), targets=[1, 4], samples=3)
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    for name, value in (("samples", samples), ("chunk", chunk)):
        if value < 1:
            raise ArgumentError(name, f"wanted at least 1, got {value}")
    if not 0 <= std < float("inf"):
        raise ArgumentError("std", f"wanted 0 or more, got {std}")
    module = chosen_layer(model, images, layer)
    scores, activation = scores_and_activation(model, images, module)
    classes = classes_of(scores, targets)
    maps = stated_layout(model, module, activation.shape, images.shape).maps(activation).detach()
    channels, found = maps.shape[1], []
    for b, image in enumerate(images):
        generator, masked = torch.Generator().manual_seed(seed), []
        for rows in torch.arange(samples * channels).split(rows_at_once(samples * channels, chunk, images)):
            # One mask at a time: the draws of a longer tensor need not begin with those of a shorter one.
            noise = torch.stack([torch.randn(image.shape[1:], generator=generator, dtype=torch.float32) for _ in rows])
            masks = channel_masks(maps[b, rows % channels], images) + std * noise.to(maps).unsqueeze(1)
            masked.append(target_scores(scores_of_copy(model, image * masks), classes[b].expand(len(rows))))
        found.append(torch.cat(masked).view(samples, channels).mean(0))
    return shown(weighted(maps, torch.stack(found).softmax(1)), images, upsample)
