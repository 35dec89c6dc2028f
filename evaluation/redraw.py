"""Weights drawn anew: a network of the same shape that has learnt nothing.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


def redrawn(network: nn.Module, seed: int) -> nn.Module:
    """A copy in which the entries of every weight tensor are put in a random order.

    So each layer keeps the distribution of its weights, and activations stay in a sane range; what was learnt is gone.
    """
    copy = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in copy.parameters():
            weights.copy_(weights.flatten()[torch.randperm(weights.numel(), generator=generator)].view(weights.shape))
    return copy
