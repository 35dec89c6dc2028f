"""Typical weights of the Gaussian process: those of greatest evidence for many games together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.group_explanations.chosen import chosen_coalitions
from benchmarks.group_explanations.estimates import ends
from benchmarks.group_explanations.game import Array, StoredGame
from benchmarks.group_explanations.gaussian_process import odd, prior_of
from imagexplain.attribution.gaussian_process_shapley import covariances, evidence

COST = 150
"""Forward passes of each game."""

START, WIDTH = -2.0, 6.0
"""Mean and standard deviation of the logarithms before any game is known."""

STEPS = 60


def known_of(game: StoredGame) -> tuple[Tensor, Tensor]:
    """Odd parts (n,) of a game's chosen coalitions, and the covariances (M + 1, n, n) of its kernels."""
    prior = prior_of(game.facts)
    rows = chosen_coalitions(prior, game.players, (COST - 2) // 2, 0)
    empty, full = ends(game)
    return covariances(rows, torch.from_numpy(odd(game, rows.numpy().astype(float))), full - empty, prior)


def typical_weights(games: Iterable[tuple[Tensor, Tensor]]) -> Array:
    """Logarithms (M + 1,) of the weights of greatest evidence, their kernels' sum 1."""
    data = [(known / known.abs().max(), parts) for known, parts in games]
    weights = torch.full((len(data[0][1]),), START, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        unusual = ((weights - START) / WIDTH).square().sum() / 2
        found = unusual - torch.stack([evidence(known, parts, weights) for known, parts in data]).sum()
        found.backward()
        return found

    search.step(loss)
    found = weights.detach()
    return np.asarray((found - found[:-1].logsumexp(0)).numpy())


def without_each(games: Mapping[str, list[tuple[Tensor, Tensor]]], fitted: Iterable[str]) -> dict[str, Array]:
    """Typical weights for each model's games, fitted to those of all other models; under "" those of all."""
    models = [*fitted, ""]
    return {
        left: typical_weights([one for name, own in games.items() if name != left for one in own]) for left in models
    }
