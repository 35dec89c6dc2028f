"""Coalitions of which all are chosen, by all that is known of the game: tried, and not what the library has.

:mod:`imagexplain.attribution.coalition_design` draws half of them and leaves the neighbours out of the choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.attribution.gaussian_process_shapley import JITTER, Prior, drawn_coalitions

CANDIDATES = 600
"""Coalitions that the next is chosen from; with as many again as are chosen."""

MOST_CHOSEN = 400
"""Largest number of chosen coalitions; further ones are as they were drawn."""


def chosen_coalitions(prior: Prior, groups: int, count: int, seed: int, relative: bool = False) -> Tensor:
    """Coalitions (n, G), bool, of which each stands for its complement, too; the first are those that tell most.

    n is the count, or 2^(G−1) − 1 where there are no more pairs of complements.

    Args:
        prior: Covariance of the game.
        groups: Number G of groups.
        count: Number of coalitions.
        seed: Seed of those that are chosen from.
        relative: Sum of the variances each as a part of what it was before any coalition, in place of their sum.
    """
    drawn = drawn_coalitions(groups, CANDIDATES + count, seed)
    candidates = 2 * drawn.double() - 1
    count = min(count, len(candidates))
    signs = torch.cat([candidates, candidates.new_ones(1, groups)])  # of which the full one is known
    weights = prior.weights.exp()
    gram = sum((w * k.gram(signs, signs) for w, k in zip(weights, prior.kernels, strict=False)), signs.new_zeros(()))
    cross = sum((w * k.cross(signs) for w, k in zip(weights, prior.kernels, strict=False)), signs.new_zeros(()))
    if relative:
        before = sum((w * k.covariance() for w, k in zip(weights, prior.kernels, strict=False)), gram.new_zeros(()))
        cross = cross / before.diagonal().clamp(min=1e-12).sqrt().unsqueeze(1)
    noise = weights[-1] + JITTER * gram.diagonal().mean()
    variances = gram.diagonal() + noise
    left = torch.ones(len(signs), dtype=torch.bool)
    factor = signs.new_zeros(len(signs), min(count, MOST_CHOSEN) + 1)
    chosen, newest = [], len(signs) - 1
    for step in range(factor.shape[1]):
        left[newest] = False
        chosen.append(newest)
        column = gram[:, newest] - factor[:, :step] @ factor[newest, :step]
        column[newest] = variances[newest]
        column = column / variances[newest].sqrt()
        factor[:, step] = column
        cross = cross - torch.outer(cross[:, newest] / variances[newest].sqrt(), column)
        variances = variances - column.square()
        gains = cross.square().sum(0) / variances.clamp(min=noise)
        newest = int(gains.where(left, -1.0).argmax())
    chosen += left[:-1].nonzero().squeeze(1).tolist()
    return candidates[chosen[1 : 1 + count]] > 0
