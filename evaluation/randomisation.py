"""Whether a map depends on what the model has learnt.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from evaluation.ranks import spearman
from evaluation.redraw import redrawn
from imagexplain.attribution.postprocess import CHANNELS

THRESHOLD = 0.5
"""Above it a map fails: a quarter of its ranks' variance (ρ² = 0.25) is there without anything having been learnt.

Chance stays far below. Maps of a class activation have about 64 places that are free to differ, so that |ρ| of two
unrelated ones is about √(2/π) / √63 = 0.10 on average; of maps by 23 superpixels it is 0.17. What draws edges has 1.
"""

METRICS = {"sum": "redrawn", "abs": "redrawn magnitudes"}
"""By how channels become one: signed values, and magnitudes."""


def untaught(network: nn.Module, seed: int, images: Tensor) -> nn.Module:
    """A copy with weights drawn anew and, where it has batch norms, their statistics as the images (N, …) make them.

    With the statistics of other weights, activations would grow or vanish from layer to layer.
    """
    copy = redrawn(network, seed)
    update_bn([images], copy)
    return copy


def agreement(taught: Tensor, other: Tensor) -> Mapping[str, float]:
    """|ρ| of Spearman's rank correlation of pixels in two maps (C, H, W), of signed values and of magnitudes.

    A map without order, such as one that a ReLU left empty, says nothing: there is no value then.
    """
    found = {}
    for channels, metric in METRICS.items():
        first, second = (CHANNELS[channels](maps.double().unsqueeze(0)).flatten() for maps in (taught, other))
        if first.min() < first.max() and second.min() < second.max():
            found[metric] = abs(spearman(first, second))
    return found


def fails(means: Mapping[str, float]) -> bool:
    """Whether the mean |ρ| over images, of signed values or of magnitudes, exceeds the threshold."""
    return any(means[metric] > THRESHOLD for metric in METRICS.values() if metric in means)
