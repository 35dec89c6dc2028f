"""Clusters of features, and their agreement over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from imagexplain.errors import ArgumentError

Features = NDArray[np.float64]

MOST_CLUSTERS = 5
"""Number of clusters that are tried, at most; a person reads every one."""

LEAST_PER_CLUSTER = 3
"""Number of features for each cluster that is tried: what one image alone shows is no concept."""

LEAST_SILHOUETTE = 0.2
"""Mean silhouette from which clusters are told apart; features below it are one cluster."""

SEEDS = 5
"""Number of seeds whose clusters are compared."""

RESTARTS = 20
"""Number of starts of k-means, of which the best counts."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of N features, the largest first.

    Attributes:
        assigned: Cluster (N,) of each feature.
        centres: Centres (C, K) in the space of :func:`directions`.
        stability: Adjusted Rand index, −1 … 1, averaged over all pairs of five seeds; 1 where all agree.
    """

    assigned: NDArray[np.int64]
    centres: Features
    stability: float


def directions(features: Features) -> Features:
    """Features (N, K) by their length: clusters are of directions, for the length goes with contrast and size.

    Zeros stay.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def cluster(features: Features, seed: int = 0, clusters: int | None = None) -> Clusters:
    """Group features (N, K) by k-means of their directions.

    Args:
        features: Features (N, K), N at least 1.
        seed: First of the seeds; the clusters are those of this one.
        clusters: Number of clusters; if not given, the one of 2 … :data:`MOST_CLUSTERS`, and at most one for every
            :data:`LEAST_PER_CLUSTER` features, with the best mean silhouette; a single one where that is below
            :data:`LEAST_SILHOUETTE`.

    Raises:
        ArgumentError: no features, or more clusters than there are.
    """
    if len(features) == 0:
        raise ArgumentError("features", "wanted at least one, got none")
    points = directions(features)
    distinct = len(np.unique(points, axis=0))
    if clusters is not None and not 1 <= clusters <= len(features):
        raise ArgumentError("clusters", f"wanted 1 to {len(features)}, one for each segment, got {clusters}")
    count = min(clusters, distinct) if clusters is not None else _count(points, distinct, seed)
    runs = [_k_means(points, count, seed + number) for number in range(SEEDS)]
    return Clusters(*_largest_first(runs[0], points), agreement(runs))


def nearest(features: Features, centres: Features) -> NDArray[np.int64]:
    """Number (N,) of the centre that each feature (N, K) is nearest to, the first of equals."""
    distances = np.square(directions(features)[:, None] - centres[None]).sum(2)
    found: NDArray[np.int64] = distances.argmin(1)
    return found


def agreement(runs: Sequence[NDArray[np.int64]]) -> float:
    """Mean adjusted Rand index of all pairs of assignments (N,) of the same features."""
    from sklearn.metrics import adjusted_rand_score  # which takes seconds

    return float(np.mean([adjusted_rand_score(one, other) for one, other in combinations(runs, 2)]))


def _count(points: Features, distinct: int, seed: int) -> int:
    from sklearn.metrics import silhouette_score

    best, found = LEAST_SILHOUETTE, 1
    most = min(MOST_CLUSTERS, len(points) // LEAST_PER_CLUSTER, distinct - 1)
    for count in range(2, most + 1):
        silhouette = float(silhouette_score(points, _k_means(points, count, seed)))
        if silhouette > best:
            best, found = silhouette, count
    return found


def _k_means(points: Features, count: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=RESTARTS, random_state=seed).fit_predict(points).astype(np.int64)


def _largest_first(assigned: NDArray[np.int64], points: Features) -> tuple[NDArray[np.int64], Features]:
    """The same clusters numbered by size, of equal ones the first feature's first; and their centres."""
    numbers, first, sizes = np.unique(assigned, return_index=True, return_counts=True)
    order = numbers[np.lexsort((first, -sizes))]
    ranks = {number: rank for rank, number in enumerate(order.tolist())}
    renumbered = np.array([ranks[number] for number in assigned.tolist()], dtype=np.int64)
    centres = np.stack([points[renumbered == rank].mean(0) for rank in range(len(order))])
    return renumbered, centres
