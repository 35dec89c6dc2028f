r"""Shapley values of groups by Gaussian-process regression on the scores of coalitions, with standard errors.

A game v of G groups is a function of signs s ∈ {−1, 1}^G, 1 where a group is present. A priori it is a Gaussian process
with mean 0 and covariance Σ_m w_m k_m(s, t), a sum of

- *main effects* sᵀ A t: the values of groups, with covariance A;
- *interactions* Π_{i∈N} (1 + c_i s_i t_i) / (1 + c_i), a mean over neighbourhoods N: all sets of groups within N act
  together, each further group with a weight smaller by the coupling c_i. It is the diffusion kernel of the hypercube.
- a constant.

The Shapley value is a linear functional of the game. With x = 2τ − 1, and each group present by the chance τ (Owen),

    φ_i(v) = ½ ∫_{−1}^{1} E_x[v(S ∪ i) − v(S ∖ i)] dx

so that it is itself Gaussian, and of these kernels known in closed form:

    φ_i k(·, t)  = 2 (A t)_i                                               main effects
                 = 2 c_i t_i ½∫ Π_{j≠i} (1 + c_j t_j x) dx                 interactions, but for the divisor
    φ_i φ_j k    = 4 A_ij
                 = 4 c_i ¼∫∫ Π_{l≠i} (1 + c_l x y) dx dy                   i = j
                 = 4 c_i c_j ¼∫∫ x y Π_{l≠i,j} (1 + c_l x y) dx dy         i ≠ j

Gauss and Legendre integrate these polynomials exactly. Of the scores y of coalitions, with K_w their covariance,
Φ = φ k(·, coalitions) and C = φ φ k,

    E[φ | y] = Φ K_w⁻¹ y                 Cov[φ | y] = σ² (C − Φ K_w⁻¹ Φᵀ),   σ² = yᵀ K_w⁻¹ y / n

The empty and the full coalition are among them, without noise: the values sum to the difference of their scores. The
weights w are those of greatest evidence near typical ones, so that an image whose groups act one by one is fitted
as kernel SHAP does, and one whose groups act together is shrunk as far as its scores bear out.

Where the model has gradients, those of partial images count, too: one backward pass holds the derivatives by the
presence of all groups. The kernels are polynomials in s, linear in each s_i, and have derivatives within the cube. A
network's are others, since a half-faded group is none that is there by one half: by noise from point to point, and by
a bias that all points share. The evidence finds the weights of both as well, so that gradients tell much where the
score is smooth between coalitions, and nothing where it is not.

Sources: Owen 1972, "Multilinear Extensions of Games"; Kondor, Lafferty 2002, "Diffusion Kernels on Graphs and Other
Discrete Input Spaces"; O'Hagan 1991, "Bayes–Hermite Quadrature", for integrals of Gaussian processes; Mitchell et al.,
arXiv 2104.12199, who take a Gaussian process over orders in place of coalitions; Mohammadi et al., arXiv 2505.16516,
for Shapley values of product kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from imagexplain.errors import ArgumentError

JITTER = 1e-9
"""Variance that is added to every score's, as a part of the mean variance: what float64 needs to factorise."""

SEARCH_STEPS = 15
"""Iterations of the search for the weights."""

SEARCHED = 400
"""Largest number of scores and slopes that the weights are searched by; of more, evenly spaced ones."""

TYPICAL = (-6.0, -1.5, -3.0, -1.0, -2.0, -4.5, -1.5, -18.0, 1.5, -1.0)
"""Logarithms of the weights of :func:`segment_prior`, of the three kinds of noise last.

Those of greatest evidence for ten scenes of five networks together, which ``results_group_methods.json`` names.
"""


class Kernel(Protocol):
    """Covariance of a part of the game, with its Shapley values in closed form.

    Scores are known at signs, slopes ∂v/∂s at points within −1 … 1; those of one point follow each other.
    """

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the scores at signs (n, G) and (m, G)."""

    def gram_slopes(self, signs: Tensor, points: Tensor) -> Tensor:
        """Covariance (n, m · G) of the scores at signs (n, G) and the slopes at points (m, G)."""

    def slopes_gram(self, points: Tensor) -> Tensor:
        """Covariance (m · G, m · G) of the slopes at points (m, G)."""

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the scores at signs (n, G)."""

    def cross_slopes(self, points: Tensor) -> Tensor:
        """Covariance (G, m · G) of the Shapley values and the slopes at points (m, G)."""

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""


@dataclass(frozen=True, eq=False)
class MainEffects:
    """Groups that act one by one: v(s) = βᵀ s with β ~ N(0, A).

    Attributes:
        effects: Covariance A (G, G), float64, symmetric and positive semidefinite.
    """

    effects: Tensor

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the scores at signs (n, G) and (m, G)."""
        return one @ self.effects @ other.T

    def gram_slopes(self, signs: Tensor, points: Tensor) -> Tensor:
        """Covariance (n, m · G) of the scores at signs (n, G) and the slopes at points (m, G)."""
        return (signs @ self.effects).repeat(1, len(points))

    def slopes_gram(self, points: Tensor) -> Tensor:
        """Covariance (m · G, m · G) of the slopes at points (m, G)."""
        return self.effects.repeat(len(points), len(points))

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the scores at signs (n, G)."""
        return 2 * self.effects @ signs.T

    def cross_slopes(self, points: Tensor) -> Tensor:
        """Covariance (G, m · G) of the Shapley values and the slopes at points (m, G)."""
        return (2 * self.effects).repeat(1, len(points))

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
    def _nodes(self) -> tuple[Tensor, Tensor]:
        """Nodes x on −1 … 1 and weights of ½∫ dx, exact for polynomials of degree G."""
        nodes, weights = np.polynomial.legendre.leggauss(self.couplings.shape[1] // 2 + 1)
        return torch.from_numpy(nodes), torch.from_numpy(weights / 2)

    @cached_property
    def _scale(self) -> Tensor:
        """Logarithm (N,) of each neighbourhood's divisor Π (1 + c_i)."""
        return self.couplings.log1p().sum(1)

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the scores at signs (n, G) and (m, G)."""
        found = one.new_zeros(len(one), len(other))
        for coupling, scale in zip(self.couplings, self._scale, strict=True):
            # log(1 + c s t) = (log(1 + c) + log(1 − c)) / 2 + s t (log(1 + c) − log(1 − c)) / 2
            level = (coupling.log1p() + (-coupling).log1p()).sum() / 2 - scale
            found += (level + (one * coupling.atanh()) @ other.T).exp()
        return found / len(self.couplings)

    def gram_slopes(self, signs: Tensor, points: Tensor) -> Tensor:
        """Covariance (n, m · G) of the scores at signs (n, G) and the slopes at points (m, G)."""
        found = signs.new_zeros(len(signs), *points.shape)
        for coupling, scale in zip(self.couplings, self._scale, strict=True):
            share = coupling * signs.unsqueeze(1)  # (n, 1, G)
            factor = 1 + share * points  # (n, m, G)
            found += share / factor * (factor.log().sum(2, keepdim=True) - scale).exp()
        return found.flatten(1) / len(self.couplings)

    def slopes_gram(self, points: Tensor) -> Tensor:
        """Covariance (m · G, m · G) of the slopes at points (m, G)."""
        count, groups = points.shape
        found = points.new_zeros(count, groups, count, groups)
        for coupling, scale in zip(self.couplings, self._scale, strict=True):
            inside = coupling.nonzero().squeeze(1)
            part, own = coupling[inside], points[:, inside]
            factor = 1 + part * own.unsqueeze(1) * own  # (m, m, G′)
            product = (factor.log().sum(2, keepdim=True) - scale).exp()
            left, right = part * own / factor, part * own.unsqueeze(1) / factor
            each = left.unsqueeze(3) * right.unsqueeze(2) * product.unsqueeze(3)  # (m, m, G′, G′)
            each.diagonal(dim1=2, dim2=3).copy_(part / factor * product)
            found[:, inside[:, None], :, inside] += each.permute(2, 3, 0, 1)
        return found.reshape(count * groups, count * groups) / len(self.couplings)

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the scores at signs (n, G)."""
        (nodes, weights), found = self._nodes, torch.zeros_like(signs.T)
        present, absent = (signs > 0).double(), (signs < 0).double()
        for coupling, scale in zip(self.couplings, self._scale, strict=True):
            along = coupling.unsqueeze(1) * nodes  # (G, Q)
            product = (present @ along.log1p() + absent @ (-along).log1p() - scale).exp() * weights  # (n, Q)
            # of each group's own factor the product is freed again
            others = torch.where(signs.T > 0, (1 / (1 + along)) @ product.T, (1 / (1 - along)) @ product.T)
            found += 2 * coupling.unsqueeze(1) * signs.T * others
        return found / len(self.couplings)

    def cross_slopes(self, points: Tensor) -> Tensor:
        """Covariance (G, m · G) of the Shapley values and the slopes at points (m, G)."""
        (nodes, weights), (count, groups) = self._nodes, points.shape
        found = points.new_zeros(groups, count, groups)
        for coupling, scale in zip(self.couplings, self._scale, strict=True):
            factor = 1 + coupling * points.unsqueeze(1) * nodes.unsqueeze(1)  # (m, Q, G)
            product = (factor.log().sum(2) - scale).exp() * weights  # (m, Q)
            own = 2 * coupling * points.unsqueeze(1) / factor
            each = torch.einsum("mq,mqi,mql->iml", product * nodes, own, coupling / factor)
            each.diagonal(dim1=0, dim2=2).copy_(torch.einsum("mq,mqi->mi", product, 2 * coupling / factor))
            found += each
        return found.flatten(1) / len(self.couplings)

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""
        nodes, weights = self._nodes
        found = torch.zeros(self.couplings.shape[1], self.couplings.shape[1], dtype=torch.float64)
        square, weight = torch.outer(nodes, nodes).flatten(), torch.outer(weights, weights).flatten()
        for coupling, scale in zip(self.couplings, self._scale, strict=True):
            factor = 1 + coupling.unsqueeze(1) * square  # (G, Q²)
            product = (factor.log().sum(0) - scale).exp() * weight
            share = coupling.unsqueeze(1) / factor
            each = share * (product * square) @ share.T
            each.diagonal().copy_(share @ product)
            found += 4 * each
        return found / len(self.couplings)


@dataclass(frozen=True, eq=False)
class Constant:
    """A score that all coalitions share, of variance 1; no group has a part in it.

    Attributes:
        groups: Number G of groups.
    """

    groups: int

    def gram(self, one: Tensor, other: Tensor) -> Tensor:
        """Covariance (n, m) of the scores at signs (n, G) and (m, G)."""
        return one.new_ones(len(one), len(other))

    def gram_slopes(self, signs: Tensor, points: Tensor) -> Tensor:
        """Covariance (n, m · G) of the scores at signs (n, G) and the slopes at points (m, G)."""
        return signs.new_zeros(len(signs), points.numel())

    def slopes_gram(self, points: Tensor) -> Tensor:
        """Covariance (m · G, m · G) of the slopes at points (m, G)."""
        return points.new_zeros(points.numel(), points.numel())

    def cross(self, signs: Tensor) -> Tensor:
        """Covariance (G, n) of the Shapley values and the scores at signs (n, G)."""
        return torch.zeros_like(signs.T)

    def cross_slopes(self, points: Tensor) -> Tensor:
        """Covariance (G, m · G) of the Shapley values and the slopes at points (m, G)."""
        return points.new_zeros(self.groups, points.numel())

    def covariance(self) -> Tensor:
        """Covariance (G, G) of the Shapley values."""
        return torch.zeros(self.groups, self.groups, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Prior:
    """The covariance of a game before any of its scores is known.

    Attributes:
        kernels: Kernels, of about equal variance.
        weights: Typical logarithms (M + 3,), float64, of the weights of the kernels, of the noise of scores, of the
            noise of slopes from point to point, and of their bias, the same at all points.
        slope_noise: Relative variance (G,), float64, of noise and bias of each group's slopes.
        spread: Standard deviation of an image's logarithms around the typical ones; 0 keeps these.
    """

    kernels: tuple[Kernel, ...]
    weights: Tensor
    slope_noise: Tensor
    spread: float


def segment_prior(squares: Tensor, borders: Tensor, spread: float = 1.5) -> Prior:
    """Covariance of a game of image segments, by what is known of them without the model.

    Main effects are as likely for each segment, or in proportion to ‖Δ_S‖², as which they may also be shared out; and
    segments interact all with all, or with those that they touch, the more the larger ‖Δ_S‖ is: one that equals the
    baseline has no effect.

    Args:
        squares: Squared norms ‖Δ_S‖² (G,) of the segments' differences from the baseline.
        borders: Touching (G, G), bool or lengths, symmetric: above 0 where two segments touch.
        spread: Standard deviation of the logarithms of an image's weights around the typical ones.
    """
    groups = len(squares)
    share = squares.detach().cpu().double()
    share = share / share.sum() if share.sum() > 0 else torch.full((groups,), 1 / groups, dtype=torch.float64)
    strength = share.sqrt() / share.sqrt().mean()
    near = (borders.cpu() > 0) | torch.eye(groups, dtype=torch.bool)
    kernels = (
        MainEffects(torch.eye(groups, dtype=torch.float64) / groups),
        MainEffects(share.diag()),
        MainEffects(torch.outer(share, share) / share.square().sum()),
        Constant(groups),
        Interactions((0.2 * strength).tanh().unsqueeze(0)),
        Interactions((0.6 * strength).tanh().unsqueeze(0)),
        Interactions((0.6 * strength).tanh() * near),
    )
    return Prior(kernels, torch.tensor(TYPICAL, dtype=torch.float64), share, spread)


@dataclass(frozen=True, eq=False)
class ShapleyPosterior:
    """Estimated Shapley values; tensors are float64.

    Attributes:
        values: Values (G,), whose sum is the difference of the full and the empty coalition's scores.
        errors: Standard errors (G,).
        weights: Logarithms (M + 3,) of the weights that were found.
    """

    values: Tensor
    errors: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Slopes:
    """Derivatives of the score by the presence of each group, 0 … 1, at partial images.

    Attributes:
        presence: Presence (m, G) of the groups, 0 … 1.
        slopes: Derivatives (m, G).
    """

    presence: Tensor
    slopes: Tensor


def shapley_posterior(
    coalitions: Tensor, scores: Tensor, empty: float, full: float, prior: Prior, slopes: Slopes | None = None
) -> ShapleyPosterior:
    """Estimate Shapley values from the scores of some coalitions, and from slopes at partial images.

    Args:
        coalitions: Coalitions (n, G), bool, neither empty nor full; each may come once or more often.
        scores: Scores (n,) of the coalitions.
        empty: Score of the empty coalition.
        full: Score of the full coalition.
        prior: Covariance of the game.
        slopes: Slopes of the score, None for none.

    Returns:
        Values and their standard errors. Scores or slopes that are not finite make all of them NaN.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Example:
        >>> from torch import eye, ones, tensor
        >>> from imagexplain.attribution.gaussian_process_shapley import MainEffects, Prior, shapley_posterior
        >>> weights = tensor([0.0, -20.0, 0.0, 0.0]).double()  # of one kernel, and hardly any noise
        >>> prior = Prior((MainEffects(eye(3).double()),), weights, ones(3).double(), spread=0.0)
        >>> alone = eye(3).bool()  # a game that adds 1, 2 and 4, of which two scores are known
        >>> found = shapley_posterior(alone[:2], tensor([1.0, 2.0]), 0.0, 7.0, prior)
        >>> found.values.round(decimals=3).tolist()
        [1.0, 2.0, 4.0]
    """
    groups = _check(coalitions, scores, prior, slopes)
    ends = torch.tensor([empty, full], dtype=torch.float64)
    presence = torch.zeros(0, groups) if slopes is None else slopes.presence
    rates = torch.zeros(0, groups) if slopes is None else slopes.slopes
    points = 2 * presence.detach().cpu().double() - 1
    signs = torch.cat([2 * coalitions.cpu().double() - 1, torch.tensor([[-1.0], [1.0]]).double().expand(2, groups)])
    known = torch.cat([scores.detach().cpu().double(), ends]) - ends.mean()
    known = torch.cat([known, rates.detach().cpu().double().flatten() / 2])  # by a sign, which changes by 2
    scale = known.abs().max()
    if not known.isfinite().all() or scale == 0:
        nothing = torch.zeros(groups, dtype=torch.float64) * scale  # NaN stays NaN
        return ShapleyPosterior(nothing, nothing, prior.weights)
    parts = _covariances(signs, points, prior)
    weights = _most_evident(known / scale, parts, prior)
    inverse = torch.cholesky_inverse(_factor(weights, parts))
    coefficients = inverse @ known
    cross, before = (known.new_zeros(groups, width) for width in (len(known), groups))
    for weight, kernel in zip(weights.exp(), prior.kernels, strict=False):  # noise has no Shapley values
        cross += weight * torch.cat([kernel.cross(signs), kernel.cross_slopes(points)], 1)
        before += weight * kernel.covariance()
    variance = (before - cross @ inverse @ cross.T).diagonal().clamp(min=0)
    values = cross @ coefficients
    values += (full - empty - values.sum()) / groups  # what the jitter has moved
    return ShapleyPosterior(values, (variance * (known @ coefficients) / len(known)).sqrt(), weights)


def _covariances(signs: Tensor, points: Tensor, prior: Prior) -> Tensor:
    """Covariances (M + 3, N, N) of scores and slopes, the last three of noise, of which ends have none."""
    found = []
    for kernel in prior.kernels:
        both = kernel.gram_slopes(signs, points)
        upper = torch.cat([kernel.gram(signs, signs), both], 1)
        found.append(torch.cat([upper, torch.cat([both.T, kernel.slopes_gram(points)], 1)]))
    noise = torch.zeros(2, len(signs) + points.numel(), dtype=torch.float64)
    noise[0, : len(signs) - 2] = 1
    noise[1, len(signs) :] = prior.slope_noise.repeat(len(points))
    bias = torch.zeros_like(found[0])
    bias[len(signs) :, len(signs) :] = prior.slope_noise.diag().repeat(len(points), len(points))
    return torch.stack([*found, *noise.diag_embed(), bias])


def _factor(weights: Tensor, parts: Tensor) -> Tensor:
    """Cholesky factor (N, N) of the weighted covariance."""
    covariance = torch.einsum("m,mij->ij", weights.exp(), parts)
    jitter = JITTER * covariance.diagonal().mean()
    return torch.linalg.cholesky(covariance + jitter * torch.eye(len(covariance), dtype=torch.float64))


def evidence(known: Tensor, parts: Tensor, weights: Tensor) -> Tensor:
    """Logarithm of the evidence for weights, but for a constant, with the scale σ² of the scores at its best.

    −log p(y | w) = N/2 log(yᵀ K⁻¹ y / N) + ½ log |K|
    """
    factor = _factor(weights, parts)
    white = torch.linalg.solve_triangular(factor, known.unsqueeze(1), upper=False)
    return -len(known) / 2 * (white.square().sum() / len(known)).log() - factor.diagonal().log().sum()


def _most_evident(known: Tensor, parts: Tensor, prior: Prior) -> Tensor:
    """Logarithms (M + 3,) of the weights of greatest evidence near the typical ones."""
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


def _check(coalitions: Tensor, scores: Tensor, prior: Prior, slopes: Slopes | None) -> int:
    """Number of groups; raises ArgumentError where arguments do not fit."""
    if coalitions.ndim != 2 or coalitions.dtype != torch.bool or coalitions.shape[1] < 1:
        raise ArgumentError("coalitions", f"wanted (n, G) bool, got {tuple(coalitions.shape)} {coalitions.dtype}")
    count, groups = coalitions.shape
    if scores.shape != (count,):
        raise ArgumentError("scores", f"wanted ({count},), got {tuple(scores.shape)}")
    if prior.weights.shape != (len(prior.kernels) + 3,):
        raise ArgumentError("prior", f"wanted weights ({len(prior.kernels) + 3},), got {tuple(prior.weights.shape)}")
    if slopes is not None and not slopes.presence.shape == slopes.slopes.shape == (len(slopes.presence), groups):
        given = f"{tuple(slopes.presence.shape)} and {tuple(slopes.slopes.shape)}"
        raise ArgumentError("slopes", f"wanted the same (m, {groups}), got {given}")
    return groups
