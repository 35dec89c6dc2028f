"""The Gaussian process of the library, at a given cost, and variants of it that were tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from benchmarks.group_explanations.chosen import chosen_coalitions
from benchmarks.group_explanations.estimates import Estimate, ends
from benchmarks.group_explanations.game import Array, Facts, Game
from imagexplain.attribution.coalition_design import CANDIDATES, designed_coalitions
from imagexplain.attribution.gaussian_process_shapley import (
    Prior,
    drawn_coalitions,
    exact_shapley_values,
    segment_prior,
    shapley_posterior,
)

Choice = Literal["drawn", "chosen", "relative", "half"]
"""Ways to coalitions: sizes drawn evenly, all chosen by the sum of variances, by the sum of the variances as parts of
what they were before, or the first half drawn and the others chosen, as the library does."""


def gaussian_process(
    game: Game, facts: Facts, budget: int, seed: int, weights: Array | None = None, choice: Choice = "half"
) -> Estimate:
    """Shapley values by the Gaussian process.

    Args:
        game: Game.
        facts: Facts of its segments.
        budget: Forward passes.
        seed: Seed of the coalitions.
        weights: Typical weights, None for those of the library.
        choice: Way to the coalitions.
    """
    prior, players = prior_of(facts, weights), game.players
    count = (budget - 2) // 2
    if choice == "drawn":
        rows = drawn_coalitions(players, count, seed)
    elif choice == "half":
        rows = designed_coalitions(prior, drawn_coalitions(players, CANDIDATES + count, seed), count)
    else:
        rows = chosen_coalitions(prior, players, count, seed, relative=choice == "relative")
    empty, full = ends(game)
    known = torch.from_numpy(odd(game, rows.numpy().astype(float)))
    if len(rows) == 2 ** (players - 1) - 1:
        return Estimate(exact_shapley_values(rows, known, full - empty).numpy(), np.zeros(players))
    found = shapley_posterior(rows, known, full - empty, prior)
    return Estimate(found.values.numpy(), found.errors.numpy())


def prior_of(facts: Facts, weights: Array | None = None) -> Prior:
    """The prior of segments with these facts, with other typical weights where they are given."""
    squares, colours, borders = (torch.from_numpy(part) for part in (facts.squares, facts.colours, facts.borders))
    prior = segment_prior(squares, colours, borders)
    return prior if weights is None else replace(prior, weights=torch.from_numpy(weights))


def odd(game: Game, rows: Array) -> Array:
    """Half the differences (n,) of the values of coalitions (n, K) and of their complements."""
    values = game.values(np.concatenate([rows, 1 - rows]))
    return np.asarray((values[: len(rows)] - values[len(rows) :]) / 2)
