"""Estimates of Shapley values, and what all estimators need of a game."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.group_explanations.game import Array, Game


@dataclass(frozen=True)
class Estimate:
    """Estimated Shapley values.

    Attributes:
        values: Value (K,) of each segment.
        errors: Standard errors (K,), None where an estimator has none.
    """

    values: Array
    errors: Array | None = None


def ends(game: Game) -> tuple[float, float]:
    """Values of the empty and of the full coalition."""
    empty, full = game.values(np.stack([np.zeros(game.players), np.ones(game.players)]))
    return float(empty), float(full)


def leggauss(count: int) -> tuple[Array, Array]:
    """Nodes and weights (count,) of Gauss and Legendre on 0 … 1; the nodes are float32 numbers."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return ((nodes + 1) / 2).astype(np.float32).astype(float), weights / 2
