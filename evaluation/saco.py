"""SaCo, the Salience-guided Faithfulness Coefficient: do the pixels that score higher cost more when they go?

The pixels are split by rank into K groups of equal size. Of each pair the salience of the one above the other counts
for the map where it also costs more confidence to take away, and against it where it does not. Unlike deletion, each
group is taken away alone, and by how much the scores differ matters, not their order alone.

Source: Wu, Kang, Tang, Hong, Yan, "On the Faithfulness of Vision Transformer Explanations", CVPR 2024, arXiv
2404.01415, algorithm 1; the authors' outline in github.com/adreamwu/SaCo.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evaluation.coalition_game import CoalitionGame
from imagexplain.errors import ArgumentError

GROUPS = 10
"""Number K of groups, the paper's."""


def rank_groups(values: Tensor, count: int) -> Tensor:
    """(H, W) int64 group 0 … K−1 of each pixel of a map (H, W), the highest values first, as equal in size as may be.

    Of equal values the first pixel comes first.

    Raises:
        ArgumentError: more groups than pixels, or none.
    """
    if not 1 <= count <= values.numel():
        raise ArgumentError("count", f"wanted 1 to {values.numel()} groups, got {count}")
    order = values.flatten().argsort(descending=True, stable=True)
    groups = torch.empty_like(order)
    groups[order] = torch.arange(len(order)) * count // len(order)
    return groups.view(values.shape)


def coefficient(salience: Tensor, drops: Tensor) -> float:
    """The coefficient of groups, −1 … 1, of their saliences s and what taking each away costs, d. Higher is better.

    Σ_{i<j} ±(s_i − s_j) / Σ_{i<j} |s_i − s_j| over the groups by descending salience, + where d_i ≥ d_j and − else. 0
    where all saliences are equal, which the paper leaves open: such a map claims nothing.

    Args:
        salience: Sums (K,) of the scores of the groups' pixels, in any order.
        drops: Drops (K,) of the confidence in the class when a group alone is replaced.
    """
    order = salience.argsort(descending=True, stable=True)
    salience, drops = salience[order].double(), drops[order].double()
    gaps = (salience[:, None] - salience).triu(1)  # (K, K), at least 0
    total = gaps.sum()
    agreed = torch.where(drops[:, None] >= drops, gaps, -gaps)
    return (agreed.sum() / total).item() if total > 0 else 0.0


def saco(game: CoalitionGame, values: Tensor, groups: Tensor) -> float:
    """SaCo of a map (H, W), of the softmax probability in the game of its :func:`rank_groups` (H, W)."""
    salience = torch.zeros(game.groups, dtype=torch.float64).scatter_add(0, groups.flatten(), values.double().flatten())
    everyone = torch.ones(1, game.groups, dtype=torch.bool)
    present = game.play(torch.cat([everyone, ~torch.eye(game.groups, dtype=torch.bool)]))[:, 1]
    return coefficient(salience, present[0] - present[1:])
