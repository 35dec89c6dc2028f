"""Model parameter randomization: a map that stays as it was does not depend on what the model has learnt.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292, section 3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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


def randomize_parameters(
    network: nn.Module, seed: int, images: Tensor | None = None, layers: Collection[str] | None = None
) -> nn.Module:
    """A copy in which the entries of every weight tensor are permuted at random.

    So each layer keeps the distribution of its weights, and activations stay in a sane range; what was learnt is gone.
    Equal seeds permute a layer alike, whatever other layers are.

    Args:
        network: Trained network, which stays as it is.
        seed: Seed of the permutations.
        images: Inputs (N, …) from which batch norms estimate their statistics again. With those of other weights,
            activations would grow or vanish from layer to layer. None keeps them, for a network without batch norms.
        layers: Names of the modules whose own parameters are permuted, None for all. Batch norms before the first of
            them keep their statistics.
    """
    copy = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    untouched: dict[str, Tensor] = {}
    changed = False
    for name, module in copy.named_modules():
        chosen = layers is None or name in layers
        changed = changed or (chosen and bool(list(module.parameters(recurse=False))))
        for weights in module.parameters(recurse=False):
            order = torch.randperm(weights.numel(), generator=generator)
            if chosen:
                with torch.no_grad():
                    weights.copy_(weights.flatten()[order].view(weights.shape))
        if not changed:
            own = module.named_buffers(name, recurse=False)
            untouched |= {buffer: values.clone() for buffer, values in own}
    if images is not None:
        update_bn([images], copy)
        copy.load_state_dict(untouched, strict=False)
    return copy


def stages(network: nn.Module, count: int) -> list[list[str]]:
    """The modules with parameters of their own, in the order of the network, cut into so many stages of equal length.

    Returns:
        The stages from the input on, fewer where there are fewer modules; none is empty.
    """
    names = [name for name, module in network.named_modules() if list(module.parameters(recurse=False))]
    count = min(count, len(names))
    return [names[part * len(names) // count : (part + 1) * len(names) // count] for part in range(count)]


def randomizations(network: nn.Module, count: int, seed: int, images: Tensor) -> Iterator[tuple[str, nn.Module]]:
    """The networks of both tests, each with its metric: cascading from the scores down, then each stage alone.

    The last of the cascade is randomized as a whole.

    Args:
        network: Trained network.
        count: Number of stages, see :func:`stages`.
        seed: Seed of the permutations.
        images: Inputs from which batch norms estimate their statistics again.

    Source: Adebayo et al., sections 3.1 and 3.2.
    """
    parts = stages(network, count)
    for first in reversed(range(len(parts))):
        layers = {name for part in parts[first:] for name in part}
        yield metrics.CASCADING_RANDOMIZATION.name, randomize_parameters(network, seed, images, layers)
    for part in parts:
        yield metrics.RANDOMIZATION_BY_LAYER.name, randomize_parameters(network, seed, images, set(part))


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
