r"""Shapley values of groups by Gaussian-process regression on coalitions, with standard errors.

A game v of G groups is a function of signs s ∈ {−1, 1}^G, 1 where a group is present. Its Shapley values depend only on
its odd part u(s) = (v(s) − v(−s)) / 2, which a coalition and its complement tell. A priori u is a Gaussian process of
mean 0 and covariance Σ_m w_m k_m(s, t), a sum of

- *main effects* sᵀ A t: groups that act one by one, with covariance A of their effects;
- *interactions*, the odd part of Π_{i∈N} (1 + c_i s_i t_i), a mean over neighbourhoods N: all sets of groups within N
  act together, each further group with a weight smaller by the coupling c_i. It is the diffusion kernel of the cube.

The Shapley value is a linear functional of the game. With x = 2τ − 1, and each group present by the chance τ (Owen),

    φ_i(v) = ½ ∫_{−1}^{1} E_x[v(S ∪ i) − v(S ∖ i)] dx

so that it is itself Gaussian, and of these kernels known in closed form:

    φ_i k(·, t)  = 2 (A t)_i                                               main effects
                 = 2 c_i t_i ½∫ Π_{j≠i} (1 + c_j t_j x) dx                 interactions, but for the divisor
    φ_i φ_j k    = 4 A_ij
                 = 4 c_i ¼∫∫ Π_{l≠i} (1 + c_l x y) dx dy                   i = j
                 = 4 c_i c_j ¼∫∫ x y Π_{l≠i,j} (1 + c_l x y) dx dy         i ≠ j

Gauss and Legendre integrate these polynomials exactly. Of the odd parts y of coalitions, with K_w their covariance,
Φ = φ k(·, coalitions) and C = φ φ k,

    E[φ | y] = Φ K_w⁻¹ y                 Cov[φ | y] = σ² (C − Φ K_w⁻¹ Φᵀ)

The full coalition is among them, without noise: the values sum to the difference of the scores of both ends. The
weights w are those of greatest evidence near typical ones. The scale σ² is the larger of yᵀ K_w⁻¹ y / n, that of
greatest evidence, and of the mean square of what each odd part misses of its prediction from all others, in units of
the standard error of that prediction.

Sources: Owen 1972, "Multilinear Extensions of Games"; Kondor, Lafferty 2002, "Diffusion Kernels on Graphs and Other
Discrete Input Spaces"; O'Hagan 1991, "Bayes–Hermite Quadrature", for integrals of Gaussian processes; Sundararajan,
Keerthi 2001, for predictions from all others; Mitchell et al., arXiv 2104.12199, who take a Gaussian process over
orders in place of coalitions; Mohammadi et al., arXiv 2505.16516, for Shapley values of product kernels; Musco, Witter
2024, arXiv 2410.01917, for sizes drawn evenly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from imagexplain.attribution.coalitions import numbered_coalitions
from imagexplain.attribution.uncertainty import standard_errors
from imagexplain.errors import ArgumentError

JITTER = 1e-8
"""Variance that is added to every odd part's, as a part of the mean variance: what float64 needs to factorise."""

SEARCH_STEPS = 12
"""Iterations of the search for the weights."""

SEARCHED = 300
"""Largest number of odd parts that the weights are searched by; of more, evenly spaced ones."""

STRONGEST = 1 - 1e-9
"""Largest coupling: the hyperbolic tangent of a large number rounds to 1, whose logarithms are infinite."""

TYPICAL = (-2.4, -0.4, -2.4, -3.9, -2.1, -8.8)
"""Logarithms of the weights of :func:`segment_prior`, of the noise last: those of greatest evidence in a fit to scenes
of LaNet, BiT, the ResNet and the ViT together, rounded. ``results_group_methods.json`` has those of a later fit without
each model; those without the Swin are of the same four and near to these.
"""


class Kernel(Protocol):
    """Covariance of an odd part of the game, with its Shapley values in closed form."""

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the odd parts at signs (n, G) and (m, G)."""

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the odd parts at signs (n, G)."""

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""


@dataclass(frozen=True, eq=False)
class MainEffects:
    """Groups that act one by one: u(s) = βᵀ s with β ~ N(0, A).

    Attributes:
        effects: Covariance A (G, G), float64, symmetric and positive semidefinite.
    """

    effects: Tensor

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the odd parts at signs (n, G) and (m, G)."""
        return one @ self.effects @ other.T

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the odd parts at signs (n, G)."""
        return 2 * self.effects @ signs.T

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""
        return 4 * self.effects


@dataclass(frozen=True, eq=False)
class Interactions:
    """Groups that act together within neighbourhoods; a kernel of variance 1.

    Attributes:
        couplings: Coupling (N, G), float64, at least 0 and below 1, of each group in each neighbourhood; 0 outside.
    """

    couplings: Tensor

    @cached_property
    def _parts(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Members (G′,) of each neighbourhood, their couplings (G′,), and the divisor that makes the variance 1."""
        inside = [coupling.nonzero().squeeze(1) for coupling in self.couplings]
        own = [coupling[members] for coupling, members in zip(self.couplings, inside, strict=True)]
        odd = [(1 - ((-coupling).log1p() - coupling.log1p()).sum().exp()) / 2 for coupling in own]
        whole = torch.stack(odd).sum()
        return [(m, c, c.log1p().sum() + whole.log()) for m, c in zip(inside, own, strict=True)]

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the odd parts at signs (n, G) and (m, G)."""
        found = one.new_zeros(len(one), len(other))
        for members, coupling, scale in self._parts:
            # log(1 + c s t) = (log(1 + c) + log(1 − c)) / 2 + s t artanh c
            level = (coupling.log1p() + (-coupling).log1p()).sum() / 2 - scale
            together = (one[:, members] * coupling.atanh()) @ other[:, members].T
            found += ((level + together).exp() - (level - together).exp()) / 2
        return found

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the odd parts at signs (n, G)."""
        found = torch.zeros_like(signs.T)
        for members, coupling, scale in self._parts:
            nodes, weights = _gauss(len(members))
            own = signs[:, members]
            along = coupling.unsqueeze(1) * nodes  # (G′, Q)
            present, absent = (own > 0).double(), (own < 0).double()
            product = (present @ along.log1p() + absent @ (-along).log1p() - scale).exp() * weights  # (n, Q)
            # of each group's own factor the product is freed again
            others = torch.where(own.T > 0, (1 / (1 + along)) @ product.T, (1 / (1 - along)) @ product.T)
            found[members] += 2 * coupling.unsqueeze(1) * own.T * others
        return found

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""
        found = self.couplings.new_zeros(self.couplings.shape[1], self.couplings.shape[1])
        for members, coupling, scale in self._parts:
            nodes, weights = _gauss(len(members))
            square, weight = torch.outer(nodes, nodes).flatten(), torch.outer(weights, weights).flatten()
            factor = 1 + coupling.unsqueeze(1) * square  # (G′, Q²)
            product = (factor.log().sum(0) - scale).exp() * weight
            share = coupling.unsqueeze(1) / factor
            each = share * (product * square) @ share.T
            each.diagonal().copy_(share @ product)
            found[members.unsqueeze(1), members] += 4 * each
        return found


def _gauss(degree: int) -> tuple[Tensor, Tensor]:
    """Nodes x on −1 … 1 and weights of ½∫ dx, exact for polynomials of this degree."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return torch.from_numpy(nodes), torch.from_numpy(weights / 2)


@dataclass(frozen=True, eq=False)
class Prior:
    """The covariance of a game before any of its scores is known.

    Attributes:
        kernels: Kernels, of about equal variance.
        weights: Typical logarithms (M + 1,), float64, of the weights of the kernels, and of the noise.
        spread: Standard deviation of an image's logarithms around the typical ones; 0 keeps these.
    """

    kernels: tuple[Kernel, ...]
    weights: Tensor
    spread: float

    @property
    def noise(self) -> Tensor:
        """Variance of the noise (), by the typical weights, as are the sums below."""
        return self.weights[-1].exp()

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the odd parts at signs (n, G) and (m, G), without noise."""
        return self._sum(kernel.gram(one, other) for kernel in self.kernels)

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the odd parts at signs (n, G)."""
        return self._sum(kernel.cross(signs) for kernel in self.kernels)

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""
        return self._sum(kernel.covariance() for kernel in self.kernels)

    def _sum(self, parts: Iterable[Tensor]) -> Tensor:
        weights = self.weights[:-1].exp()  # noise has no kernel
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(0)


def segment_prior(squares: Tensor, colours: Tensor, touching: Tensor, spread: float = 1.0) -> Prior:
    """Covariance of a game of image segments, by what is known of them without the model.

    The larger ‖Δ_S‖², the larger may the effect of a segment be: one that equals the baseline has none. The effects of
    segments of like colour are alike, in proportion to ‖Δ_S‖². And segments interact all with all, or with those that
    they touch, the more the larger ‖Δ_S‖ is.

    Args:
        squares: Squared norms ‖Δ_S‖² (G,) of the segments' differences from the baseline.
        colours: Mean inputs (G, C) of the segments.
        touching: Touching (G, G), bool or lengths, symmetric: above 0 where two segments touch.
        spread: Standard deviation of the logarithms of an image's weights around the typical ones.
    """
    groups = len(squares)
    share = squares.detach().cpu().double()
    share = share / share.sum() if share.sum() > 0 else torch.full((groups,), 1 / groups, dtype=torch.float64)
    strength = share.sqrt() / share.sqrt().mean()
    near = (touching.cpu() > 0) | torch.eye(groups, dtype=torch.bool)
    centred = colours.detach().cpu().double()
    centred = centred - centred.mean(0)
    distances = (centred.unsqueeze(1) - centred).square().sum(2)
    alike = (-distances / (8 * centred.square().mean().clamp(min=1e-12))).exp()
    alike = alike * torch.outer(share, share)
    weak, strong = ((factor * strength).tanh().clamp(max=STRONGEST) for factor in (0.2, 1.2))
    kernels = (
        MainEffects(share.diag()),
        MainEffects(alike / alike.trace()),
        Interactions(weak.unsqueeze(0)),
        Interactions(strong.unsqueeze(0)),
        Interactions(strong * near),
    )
    return Prior(kernels, torch.tensor(TYPICAL, dtype=torch.float64), spread)


def prior_of_segments(image: Tensor, baseline: Tensor, segments: Tensor) -> Prior:
    """Covariance of the game of the segments (H, W), 0 … G−1 without gaps, of an image and its baseline (C, H, W)."""
    number, groups = segments.cpu(), int(segments.max()) + 1
    flat, pixels = number.flatten(), image.detach().cpu().double()
    squares = (pixels - baseline.detach().cpu().double()).square().sum(0).flatten()
    sums = torch.zeros(groups, len(image), dtype=torch.float64).index_add_(0, flat, pixels.flatten(1).T)
    touching = torch.zeros(groups, groups, dtype=torch.bool)
    for one, other in ((number[1:], number[:-1]), (number[:, 1:], number[:, :-1])):
        touching[one, other] = touching[other, one] = True
    return segment_prior(
        torch.zeros(groups, dtype=torch.float64).index_add_(0, flat, squares),
        sums / flat.bincount(minlength=groups).unsqueeze(1),
        touching,
    )


@dataclass(frozen=True, eq=False)
class ShapleyPosterior:
    """Estimated Shapley values; tensors are float64.

    Attributes:
        values: Values (G,), whose sum is the difference of the full and the empty coalition's scores.
        covariance: Covariance (G, G) of their errors.
        weights: Logarithms (M + 1,) of the weights that were found.
    """

    values: Tensor
    covariance: Tensor
    weights: Tensor

    @property
    def errors(self) -> Tensor:
        """Standard errors (G,)."""
        return standard_errors(self.covariance)


def drawn_coalitions(groups: int, count: int, seed: int) -> Tensor:
    """Different coalitions (n, G), bool, of sizes drawn evenly from 1 … G−1, each of which stands for its complement.

    n is the count, or 2^(G−1) − 1 where there are no more pairs of complements. None has the last group.
    """
    generator = torch.Generator().manual_seed(seed)
    if groups <= 62 and 2 ** (groups - 1) - 1 <= count:
        everything = numbered_coalitions(torch.arange(1, 2 ** (groups - 1)), groups)
        weights = torch.tensor([1 / comb(groups, size) for size in everything.sum(1).tolist()], dtype=torch.float64)
        # times of exponential law: their order is that of draws by these weights, each coalition's first one kept
        times = torch.empty(len(weights), dtype=torch.float64).exponential_(generator=generator) / weights
        return everything[times.argsort()]
    seen: dict[bytes, Tensor] = {}
    while len(seen) < count:
        sizes = torch.randint(1, groups, (count, 1), generator=generator)
        ranks = torch.rand(count, groups, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
        drawn = ranks < sizes
        drawn = drawn ^ drawn[:, -1:]  # of a pair that without the last group
        for row in drawn:
            seen.setdefault(row.numpy().tobytes(), row)
    return torch.stack(list(seen.values())[:count])


def shapley_posterior(coalitions: Tensor, odd: Tensor, total: float, prior: Prior) -> ShapleyPosterior:
    """Estimate Shapley values from the scores of some coalitions and of their complements.

    Args:
        coalitions: Coalitions (n, G), bool, neither empty nor full; each may come once or more often.
        odd: Half the differences (n,) of the score of each coalition and that of its complement.
        total: Difference of the scores of the full and the empty coalition.
        prior: Covariance of the game.

    Returns:
        Values and their standard errors. Scores that are not finite make all of them NaN.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Example:
        >>> from torch import eye, tensor
        >>> from imagexplain.attribution.gaussian_process_shapley import MainEffects, Prior, shapley_posterior
        >>> prior = Prior((MainEffects(eye(3).double()),), tensor([0.0, -20.0]).double(), spread=0.0)
        >>> alone = eye(3).bool()  # a game that adds 1, 2 and 4: of the first alone 1, of the others 6
        >>> found = shapley_posterior(alone[:2], tensor([1.0 - 6.0, 2.0 - 5.0]) / 2, 7.0, prior)
        >>> found.values.round(decimals=3).tolist()
        [1.0, 2.0, 4.0]
    """
    groups = _check(coalitions, odd, prior)
    known, parts = covariances(coalitions, odd, total, prior)
    signs = signs_of(coalitions)
    scale = known.abs().max()
    if not known.isfinite().all() or scale == 0:
        nothing = torch.zeros(groups, groups, dtype=torch.float64) * scale  # NaN stays NaN
        return ShapleyPosterior(nothing[0], nothing, prior.weights)
    weights = _most_evident(known / scale, parts, prior)
    inverse = torch.cholesky_inverse(_factor(weights, parts))
    coefficients = inverse @ known
    found = replace(prior, weights=weights)
    cross = found.cross(signs)
    values = cross @ coefficients
    covariance = found.covariance() - cross @ inverse @ cross.T
    # the sum is known: what the jitter has moved of it
    values += (total - values.sum()) / groups
    covariance = covariance - covariance.mean(0) - covariance.mean(1, keepdim=True) + covariance.mean()
    missed = (coefficients.square() / inverse.diagonal())[:-1]  # (n,), of each from all others, standardised
    size = known @ coefficients / len(known)
    size = torch.maximum(size, missed.mean()) if len(missed) else size
    return ShapleyPosterior(values, covariance * size, weights)


def exact_shapley_values(coalitions: Tensor, odd: Tensor, total: float) -> Tensor:
    """Shapley values (G,), float64, where the odd parts of all coalitions are known.

    Args:
        coalitions: All coalitions (2^(G−1) − 1, G), bool, neither empty nor full, one of each with its complement.
        odd: Half the differences (2^(G−1) − 1,) of the score of each coalition and that of its complement.
        total: Difference of the scores of the full and the empty coalition.

    Source: the definition, Shapley 1953, with φ_i's terms v(S ∪ i) and v(S̄) joined, whose weights are equal.
    """
    groups = coalitions.shape[1]
    # a group's weight in coalitions of its own by their size, and against it in those of others
    of_sizes = (1 / (groups * comb(groups - 1, size)) for size in range(groups))
    weight = torch.tensor([0.0, *of_sizes], dtype=torch.float64)
    sizes = coalitions.sum(1)
    own, others = weight[sizes].unsqueeze(1), weight[groups - sizes].unsqueeze(1)
    return torch.where(coalitions, own, -others).T @ (2 * odd.double()) + total / groups


def covariances(coalitions: Tensor, odd: Tensor, total: float, prior: Prior) -> tuple[Tensor, Tensor]:
    """Odd parts (n + 1,) with the full coalition's, and their covariances (M + 1, n + 1, n + 1), the last of noise."""
    signs = signs_of(coalitions)
    noise = torch.ones(len(signs), dtype=torch.float64)
    noise[-1] = 0
    known = torch.cat([odd.detach().cpu().double(), torch.tensor([total / 2], dtype=torch.float64)])
    return known, torch.stack([*(kernel.gram(signs, signs) for kernel in prior.kernels), noise.diag()])


def signs_of(coalitions: Tensor) -> Tensor:
    """Signs (n + 1, G) of coalitions (n, G) and of the full one."""
    return 2 * torch.cat([coalitions.cpu(), torch.ones(1, coalitions.shape[1], dtype=torch.bool)]).double() - 1


def _factor(weights: Tensor, parts: Tensor) -> Tensor:
    """Cholesky factor (n, n) of the weighted covariance."""
    covariance = torch.einsum("m,mij->ij", weights.exp(), parts)
    jitter = JITTER * covariance.diagonal().mean()
    return torch.linalg.cholesky(covariance + jitter * torch.eye(len(covariance), dtype=torch.float64))


def evidence(known: Tensor, parts: Tensor, weights: Tensor) -> Tensor:
    """Logarithm of the evidence for weights, but for a constant, with the scale σ² of the scores at its best.

    −log p(y | w) = n/2 log(yᵀ K⁻¹ y / n) + ½ log |K|
    """
    factor = _factor(weights, parts)
    white = torch.linalg.solve_triangular(factor, known.unsqueeze(1), upper=False)
    return -len(known) / 2 * (white.square().sum() / len(known)).log() - factor.diagonal().log().sum()


def _most_evident(known: Tensor, parts: Tensor, prior: Prior) -> Tensor:
    """Logarithms (M + 1,) of the weights of greatest evidence near the typical ones."""
    if prior.spread == 0:
        return prior.weights
    if len(known) > SEARCHED:
        rows = torch.linspace(0, len(known) - 1, SEARCHED).round().long()
        known, parts = known[rows], parts[:, rows[:, None], rows]
    weights = prior.weights.clone().requires_grad_()
    search = torch.optim.LBFGS([weights], max_iter=SEARCH_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        unusual = ((weights - prior.weights) / prior.spread).square().sum() / 2
        found = unusual - evidence(known, parts, weights)
        found.backward()
        return found

    with torch.enable_grad():
        search.step(loss)
    return weights.detach()


def _check(coalitions: Tensor, odd: Tensor, prior: Prior) -> int:
    """Number of groups; raises ArgumentError where arguments do not fit."""
    if coalitions.ndim != 2 or coalitions.dtype != torch.bool or coalitions.shape[1] < 1:
        raise ArgumentError("coalitions", f"wanted (n, G) bool, got {tuple(coalitions.shape)} {coalitions.dtype}")
    count, groups = coalitions.shape
    if odd.shape != (count,):
        raise ArgumentError("odd", f"wanted ({count},), got {tuple(odd.shape)}")
    if prior.weights.shape != (len(prior.kernels) + 1,):
        raise ArgumentError("prior", f"wanted weights ({len(prior.kernels) + 1},), got {tuple(prior.weights.shape)}")
    return groups
