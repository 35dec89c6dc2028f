"""Model parameter randomization: a map that stays as it was does not depend on what the model has learnt.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from evaluation import metrics
from evaluation.ranks import spearman
from imagexplain.attribution.postprocess import CHANNELS

THRESHOLD = 0.5
"""Mean |ρ| above which a map fails: a quarter of its ranks' variance (ρ² = 0.25) needs nothing that was learnt.

Chance stays far below. Maps of a class activation have about 64 places that are free to differ, so that |ρ| of two
unrelated ones is about √(2/π) / √63 = 0.10 on average; of maps by 23 superpixels it is 0.17. What draws edges has 1.
"""

METRICS = {"sum": metrics.RANDOMIZATION.name, "abs": metrics.RANDOMIZATION_OF_MAGNITUDES.name}
"""Metrics by the reduction of channels: signed values, and magnitudes."""


def randomize_parameters(network: nn.Module, seed: int, images: Tensor | None = None) -> nn.Module:
    """A copy in which the entries of every weight tensor are permuted at random.

    So each layer keeps the distribution of its weights, and activations stay in a sane range; what was learnt is gone.

    Args:
        network: Trained network, which stays as it is.
        seed: Seed of the permutations.
        images: Inputs (N, …) from which batch norms estimate their statistics again. With those of other weights,
            activations would grow or vanish from layer to layer. None keeps them, for a network without batch norms.
    """
    copy = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in copy.parameters():
            weights.copy_(weights.flatten()[torch.randperm(weights.numel(), generator=generator)].view(weights.shape))
    if images is not None:
        update_bn([images], copy)
    return copy


def agreement(trained: Tensor, randomized: Tensor) -> Mapping[str, float]:
    """|ρ| of Spearman's rank correlation of pixels in two maps (C, H, W), of signed values and of magnitudes.

    A map without order, such as one that a ReLU left empty, says nothing: there is no value then.
    """
    found = {}
    for channels, metric in METRICS.items():
        first, second = (CHANNELS[channels](maps.double().unsqueeze(0)).flatten() for maps in (trained, randomized))
        if first.min() < first.max() and second.min() < second.max():
            found[metric] = abs(spearman(first, second))
    return found


def fails(means: Mapping[str, float]) -> bool:
    """Tell whether the mean |ρ| over images, of signed values or of magnitudes, exceeds the threshold."""
    return any(means[metric] > THRESHOLD for metric in METRICS.values() if metric in means)
