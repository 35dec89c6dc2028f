"""Coalitions of which all are chosen, by all that is known of the game: tried, and not what the library has.

:mod:`imagexplain.attribution.coalition_design` draws half of them and leaves the neighbours out of the choice.
"""

from __future__ import annotations

from torch import Tensor

from imagexplain.attribution.coalition_design import most_telling
from imagexplain.attribution.gaussian_process_shapley import Prior, drawn_coalitions, signs_of

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
    signs = signs_of(drawn)  # (N + 1, G), the full one, which is known, last
    cross = prior.cross(signs)
    if relative:
        cross = cross / prior.covariance().diagonal().clamp(min=1e-12).sqrt().unsqueeze(1)
    count = min(count, len(drawn))
    chosen = most_telling(prior.gram(signs, signs), cross, prior.noise, [len(drawn)], min(count, MOST_CHOSEN) + 1)[1:]
    others = [row for row in range(len(drawn)) if row not in set(chosen)]
    return drawn[[*chosen, *others][:count]]
