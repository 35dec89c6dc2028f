"""Design of the coalitions whose scores are asked for: half of them drawn, half chosen for what they will tell.

How much the Shapley values vary once some scores are known, Cov[φ | y] / σ², does not depend on these scores, so that
coalitions can be chosen before any is evaluated. Chosen is, one after the other, that which leaves the smallest sum of
the variances of all groups: a sequential A-optimal design. Those that are drawn keep the errors honest where an image
is not as the prior says.

Sources: Chaloner, Verdinelli 1995, "Bayesian Experimental Design: A Review", for A-optimality; O'Hagan 1991,
"Bayes–Hermite Quadrature", for designs of integrals of Gaussian processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.attribution.gaussian_process_shapley import JITTER, Interactions, Prior, drawn_coalitions, signs_of

CANDIDATES = 300
"""Coalitions that the next is chosen from, less those that have been chosen, plus as many as are wanted."""


def designed_coalitions(prior: Prior, groups: int, count: int, seed: int) -> Tensor:
    """Different coalitions (n, G), bool, each of which stands for its complement, too.

    n is the count, or 2^(G−1) − 1 where there are no more pairs of complements. The first half, rounded up, are drawn
    by :func:`~imagexplain.attribution.gaussian_process_shapley.drawn_coalitions`, and so are those that the others are
    chosen from. Interactions within more than one neighbourhood have no say in the choice: they take as long as all
    else, and it is none the better for them.

    Args:
        prior: Covariance of the game, of which the typical weights are taken.
        groups: Number G of groups.
        count: Number of coalitions.
        seed: Seed of those that are drawn.

    Example:
        >>> from torch import eye, tensor
        >>> from imagexplain.attribution.coalition_design import designed_coalitions
        >>> from imagexplain.attribution.gaussian_process_shapley import MainEffects, Prior
        >>> prior = Prior((MainEffects(eye(6).double()),), tensor([0.0, -9.0]).double(), spread=0.0)
        >>> designed_coalitions(prior, 6, 4, seed=0).shape
        torch.Size([4, 6])
    """
    drawn = drawn_coalitions(groups, CANDIDATES + count, seed)
    if len(drawn) <= count:
        return drawn
    signs = signs_of(drawn)  # (N + 1, G), of which the full one is known
    pairs = zip(prior.weights.exp(), prior.kernels, strict=False)  # noise has no kernel
    kernels = [(w, k) for w, k in pairs if not (isinstance(k, Interactions) and len(k.couplings) > 1)]
    gram = sum((w * k.gram(signs, signs) for w, k in kernels), signs.new_zeros(len(signs), len(signs)))
    cross = sum((w * k.cross(signs) for w, k in kernels), signs.new_zeros(groups, len(signs)))
    noise = prior.weights[-1].exp() + JITTER * gram.diagonal().mean()
    variances = gram.diagonal() + noise
    left = torch.ones(len(signs), dtype=torch.bool)
    factor = signs.new_zeros(count + 1, len(signs))  # rows of the pivoted Cholesky factor
    known = [len(drawn), *range(count - count // 2)]
    for step in range(count + 1):
        if step == len(known):  # gains: what the sum of variances falls by
            gains = cross.square().sum(0) / variances.clamp(min=noise)
            known.append(int(gains.where(left, -1.0).argmax()))
        newest = known[step]
        left[newest] = False
        row = gram[newest] - factor[:step, newest] @ factor[:step]
        row[newest] = variances[newest]
        factor[step] = row = row / variances[newest].sqrt()
        cross = cross - torch.outer(cross[:, newest] / row[newest], row)
        variances = variances - row.square()
    return drawn[known[1:]]
