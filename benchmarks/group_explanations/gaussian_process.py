"""The Gaussian process of the library, at a given cost: its draws, and the part of the cost that goes to gradients."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.group_explanations import draws
from benchmarks.group_explanations.estimates import Estimate, ends
from benchmarks.group_explanations.game import Array, Facts, Game
from imagexplain.attribution.gaussian_process_shapley import Slopes, segment_prior, shapley_posterior

UNPAIRED = 200
"""Coalitions up to which none is drawn with its complement: twice as many different ones tell more."""

GRADIENTS = 24
"""Largest number of gradients, whatever the cost: their bias stays."""


def gaussian_process(
    game: Game, facts: Facts, budget: int, price: float, seed: int, part: float, spread: float = 1.5
) -> Estimate:
    """Shapley values by the Gaussian process.

    Args:
        game: Game.
        facts: Facts of its segments.
        budget: Forward passes.
        price: Forward passes that a gradient takes.
        seed: Seed of the coalitions.
        part: Part of the budget that goes to gradients, 0 … 1.
        spread: Spread of the weights.
    """
    empty, full = ends(game)
    count = min(GRADIENTS, int(part * (budget - 2) / price))
    slopes = None
    if count:
        presence = draws.coefficients(game.players, 64, seed)[:count]
        slopes = Slopes(torch.from_numpy(presence), torch.from_numpy(game.gradients(presence)[1]))
    rows = coalitions(game.players, int(budget - 2 - count * price), seed)
    prior = segment_prior(torch.from_numpy(facts.squares), torch.from_numpy(facts.borders), spread)
    scores = torch.from_numpy(game.values(rows))
    found = shapley_posterior(torch.from_numpy(rows > 0), scores, empty, full, prior, slopes)
    return Estimate(found.values.numpy(), found.errors.numpy())


def coalitions(players: int, count: int, seed: int) -> Array:
    """Coalitions (count, K): first without their complements, then with them."""
    if count <= UNPAIRED:
        return draws.kernel_pairs(players, 2 * count, seed)[::2]
    rows = draws.kernel_pairs(players, max(count, 2 * UNPAIRED), seed)
    return np.concatenate([rows[::2], rows[1::2]])[:count]
