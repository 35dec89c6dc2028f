"""Shapley values to compare with: exact ones of few segments, and for more of them converged ones.

Those are gains along many orders, forwards and backwards, with a control variate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.group_explanations import draws
from benchmarks.group_explanations.estimates import Estimate, ends
from benchmarks.group_explanations.game import Array, Facts, Game
from benchmarks.group_explanations.gaussian_process import prior_of
from evaluation import shapley

SEED = 99
NOISE = 1e-4


@dataclass(frozen=True)
class _Coalitions:
    """The coalitions of a game's segments, which are there or not."""

    game: Game

    @property
    def groups(self) -> int:
        return self.game.players

    def scores(self, coalitions: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.game.values(coalitions.numpy().astype(float)))


def exact(game: Game) -> Estimate:
    """Shapley values from all coalitions, without errors.

    Raises:
        ValueError: more segments than can be enumerated.
    """
    return Estimate(shapley.exact(_Coalitions(game)).numpy(), np.zeros(game.players))


def converged(game: Game, facts: Facts, count: int) -> Estimate:
    """Shapley values and their standard errors from so many coalitions along orders.

    A surrogate is fitted to one half of the orders, and its own Shapley values are corrected by the gains that it
    missed along the other half; both halves are averaged. So it is unbiased whatever the surrogate is, and shares no
    draws with the estimators that are compared with it.
    """
    players = game.players
    empty, full = ends(game)
    per = 2 * (players - 1)
    orders = count // per
    rows = draws.orders(players, orders * per, SEED).reshape(orders, 2, players - 1, players)
    scores = game.values(rows.reshape(-1, players)).reshape(orders, 2, players - 1)
    forth = rows[:, 0]
    odd = (scores[:, 0] - scores[:, 1, ::-1]) / 2  # the way back passes the complements, in reverse
    first = np.arange(orders) % 2 == 0
    total, found = full - empty, np.zeros((orders, players))
    for own in (first, ~first):
        values, foretold = _surrogate(facts, forth[own], odd[own], total, forth[~own])
        missed = np.pad(odd[~own] - foretold, ((0, 0), (1, 1)))  # nothing at both ends
        found[~own] = values + _gains(forth[~own], missed)
    return Estimate(found.mean(0), found.std(0, ddof=1) / np.sqrt(orders))


def _gains(rows: Array, along: Array) -> Array:
    """Gains (orders, K) of each segment along orders, of scores (orders, K + 1)."""
    orders, _, players = rows.shape
    path = np.concatenate([np.zeros((orders, 1, players)), rows, np.ones((orders, 1, players))], 1)
    return np.asarray((np.diff(path, axis=1) * np.diff(along, axis=1)[..., None]).sum(1))


def _surrogate(facts: Facts, rows: Array, odd: Array, total: float, others: Array) -> tuple[Array, Array]:
    """Shapley values of a Gaussian process's mean, and the odd part (orders, K − 1) that it foretells of others."""
    players = rows.shape[-1]
    prior = prior_of(facts)
    weights = prior.weights.exp().tolist()[:-1]  # the control variate may have any

    def signs(points: Array) -> torch.Tensor:
        return torch.from_numpy(2 * points.reshape(-1, players) - 1)

    own = torch.cat([signs(rows), torch.ones(1, players, dtype=torch.float64)])
    known = torch.from_numpy(np.append(odd.ravel(), total / 2))

    def covariance(points: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [w * kernel.gram(points, own) for w, kernel in zip(weights, prior.kernels, strict=True)]
        ).sum(0)

    gram = covariance(own)
    noise = torch.full((len(own),), NOISE * gram.diagonal().mean().item(), dtype=torch.float64)
    noise[-1] /= 1000
    solved = torch.cholesky_solve(known.unsqueeze(1), torch.linalg.cholesky(gram + noise.diag())).squeeze(1)
    cross = [weight * kernel.cross(own) for weight, kernel in zip(weights, prior.kernels, strict=True)]
    values = torch.stack(cross).sum(0) @ solved
    values += (total - values.sum()) / players
    return values.numpy(), (covariance(signs(others)) @ solved).numpy().reshape(others.shape[:2])
