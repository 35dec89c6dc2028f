"""Design of the coalitions whose scores are asked for: half of them drawn, half chosen for what they will tell.

How much the Shapley values vary once some scores are known, Cov[φ | y] / σ², does not depend on these scores, so that
coalitions can be chosen before any is evaluated. Chosen is, one after the other, that which leaves the smallest sum of
the variances of all groups: a sequential A-optimal design. Those that are drawn keep the errors honest where an image
is not as the prior says.

Sources: Chaloner, Verdinelli 1995, "Bayesian Experimental Design: A Review", for A-optimality; O'Hagan 1991,
"Bayes–Hermite Quadrature", for designs of integrals of Gaussian processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from imagexplain.attribution.gaussian_process_shapley import JITTER, Interactions, Prior, signs_of

CANDIDATES = 300
"""Number of coalitions to draw beside those that are wanted, so that there is a choice."""


def drawn_first(count: int) -> int:
    """Number of the coalitions, of so many, that are as they were drawn: half of them, rounded up."""
    return count - count // 2


def designed_coalitions(prior: Prior, drawn: Tensor, count: int) -> Tensor:
    """The first of the drawn coalitions (N, G), bool, and the most telling of the others: (n, G).

    n is the count, or N where no more were drawn. Each coalition stands for its complement, too. Interactions within
    more than one neighbourhood have no say in the choice: they take as long as all else, and it is none the better for
    them.

    Args:
        prior: Covariance of the game, of which the typical weights are taken.
        drawn: Different coalitions (N, G) of
            :func:`~imagexplain.attribution.gaussian_process_shapley.drawn_coalitions`.
        count: Number of coalitions.

    Example:
        >>> from torch import eye, tensor
        >>> from imagexplain.attribution.coalition_design import designed_coalitions
        >>> from imagexplain.attribution.gaussian_process_shapley import MainEffects, Prior, drawn_coalitions
        >>> prior = Prior((MainEffects(eye(6).double()),), tensor([0.0, -9.0]).double(), spread=0.0)
        >>> designed_coalitions(prior, drawn_coalitions(6, 20, seed=0), 4).shape
        torch.Size([4, 6])
    """
    if len(drawn) <= count:
        return drawn
    signs = signs_of(drawn)  # (N + 1, G), the full one last
    used = [n for n, k in enumerate(prior.kernels) if not (isinstance(k, Interactions) and len(k.couplings) > 1)]
    prior = replace(prior, kernels=tuple(prior.kernels[n] for n in used), weights=prior.weights[[*used, -1]])
    known = [len(drawn), *range(drawn_first(count))]  # the full one's score is known
    return drawn[most_telling(prior.gram(signs, signs), prior.cross(signs), prior.noise, known, count + 1)[1:]]


def most_telling(gram: Tensor, cross: Tensor, noise: Tensor, known: Sequence[int], count: int) -> list[int]:
    """Indices of the known coalitions, and of those that one after the other leave the smallest sum of variances.

    Args:
        gram: Covariance (N, N) of the odd parts, without noise.
        cross: Covariance (G, N) of the Shapley values, or of what else is to vary little, and the odd parts.
        noise: Variance of the noise ().
        known: Indices that come first, whatever they tell; at least one.
        count: Number of indices.
    """
    noise = noise + JITTER * gram.diagonal().mean()
    variances = gram.diagonal() + noise
    left = torch.ones(len(gram), dtype=torch.bool)
    factor = gram.new_zeros(count, len(gram))  # rows of the pivoted Cholesky factor
    found = list(known)
    for step in range(count):
        if step == len(found):  # gains: what the sum of variances falls by
            gains = cross.square().sum(0) / variances.clamp(min=noise)
            found.append(int(gains.where(left, -1.0).argmax()))
        newest = found[step]
        left[newest] = False
        row = gram[newest] - factor[:step, newest] @ factor[:step]
        row[newest] = variances[newest]
        factor[step] = row = row / variances[newest].sqrt()
        cross = cross - torch.outer(cross[:, newest] / row[newest], row)
        variances = variances - row.square()
    return found
