"""Scores by which images of a pool are chosen to teach a class otherwise, the highest first.

All scores are of the pool images of one class. ``active`` is the original's: a half of the entropy and a half of the
squared distance to the mean feature of the class's errors, both scaled to 0 … 1 within the class's pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
"""One number for each image."""

STRATEGIES = ("random", "similarity", "active", "concept", "loss")


@dataclass(frozen=True, eq=False)
class ActiveScores:
    """Scores of ``active`` with their parts, (N,) each.

    Attributes:
        entropy: Entropy, nats.
        distance: Squared distance of the feature to the mean feature of the class's errors.
        score: ½ · scaled entropy + ½ · scaled distance, in [0, 1].
    """

    entropy: Vector
    distance: Vector
    score: Vector


def scaled(values: Vector) -> Vector:
    """Values (N,) scaled to 0 … 1 between their extremes; all 0 where they are equal, or there is none."""
    if len(values) == 0:
        return values.astype(np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(len(values))


def squared_distances(features: Vector, mean: Vector) -> Vector:
    """Squared Euclidean distances (N,) of features (N, K) to a mean (K,)."""
    distances: Vector = np.square(features.astype(np.float64) - mean.astype(np.float64)).sum(1)
    return distances


def active_scores(entropy: Vector, features: Vector, error_mean: Vector) -> ActiveScores:
    """The scores of ``active``.

    Args:
        entropy: Entropy (N,) of each image, nats.
        features: Penultimate features (N, K).
        error_mean: Mean feature (K,) of the class's errors.
    """
    entropy, distance = entropy.astype(np.float64), squared_distances(features, error_mean)
    return ActiveScores(entropy, distance, 0.5 * scaled(entropy) + 0.5 * scaled(distance))


def similarity_scores(features: Vector, error_mean: Vector) -> Vector:
    """The scores of ``similarity``, (N,): minus the squared distance to the mean feature of the class's errors."""
    return -squared_distances(features, error_mean)


def random_scores(count: int, seed: int, name: str) -> Vector:
    """Random scores (N,) in [0, 1), the same for the same seed and class whatever other classes there are."""
    return np.random.default_rng([seed, *name.encode()]).random(count)


def best(scores: Vector, most: int) -> NDArray[np.int64]:
    """Indices of the highest scores, at most so many, equal ones in their order; images without a score (NaN) never."""
    order = np.argsort(-scores, kind="stable")[: int(np.isfinite(scores).sum())]
    return order[:most].astype(np.int64)
