"""Estimators from the literature of recent years that were tried beside the Gaussian process."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

from benchmarks.group_explanations import draws
from benchmarks.group_explanations.estimates import Estimate, ends
from benchmarks.group_explanations.game import Array, Game
from benchmarks.group_explanations.rivals import constrained, enumerated

Surrogate = tuple[Callable[[Array], Array], Array]
"""A function of coalitions (n, K) to values (n,), and its own Shapley values (K,)."""


def leverage_shap(game: Game, budget: int, seed: int) -> Estimate:
    """Kernel SHAP from sizes drawn evenly, as the leverage scores of its regression are, and weighted accordingly.

    Coalitions are distinct, as the authors' are, so that the values are exact where all can be paid.

    Source: Musco, Witter 2024, "Provably Accurate Shapley Value Estimation via Leverage Score Sampling",
    arXiv 2410.01917.
    """
    empty, full = ends(game)
    rows, chances = draws.distinct_pairs(game.players, budget - 2, seed)
    return Estimate(constrained(rows, game.values(rows) - empty, full - empty, draws.kernel(rows) / chances))


def shrunk_kernel_shap(game: Game, budget: int, seed: int, prior: Array | None, price: float) -> Estimate:
    """Paired kernel SHAP, shrunk to a prior by ridge regression of a weight that leave-one-out errors choose.

    Args:
        game: Game.
        budget: Forward passes.
        seed: Seed of the coalitions.
        prior: Values (K,) to shrink to, made to sum to the total; None for equal ones.
        price: Forward passes that the prior has taken.
    """
    if (found := enumerated(game, int(budget - price))) is not None:
        return found
    players = game.players
    empty, full = ends(game)
    total = full - empty
    rows = draws.kernel_pairs(players, int(budget - 2 - price) // 2 * 2, seed)
    gains = game.values(rows)
    odd, signs = (gains[::2] - gains[1::2]) / 2, rows[::2] - 0.5  # the equations of both of a pair are one
    start = np.full(players, total / players) if prior is None else prior + (total - prior.sum()) / players
    left, right = signs - signs.mean(1, keepdims=True), odd - signs @ start
    u, s, vt = np.linalg.svd(left, full_matrices=False)
    best, shrunk = np.inf, start
    for weight in np.geomspace(1e-3, 1e4, 29):
        part = s**2 / (s**2 + weight)
        hat = ((u * part) * u).sum(1)
        errors = (right - (u * part) @ (u.T @ right)) / np.maximum(1 - hat, 1e-9)
        if (score := float(errors @ errors)) < best:
            best, shrunk = score, start + vt.T @ (s / (s**2 + weight) * (u.T @ right))
    return Estimate(shrunk + (total - shrunk.sum()) / players)


def adjusted(game: Game, budget: int, seed: int, fitted: Callable[[Array, Array, Array], Surrogate]) -> Estimate:
    """Shapley values of a surrogate, and an unbiased estimate of what it missed from coalitions that it has not seen.

    Each half of the coalitions corrects the surrogate of the other half. The correction is that of maximal sample
    reuse: φ_i = E[v(S) | i ∈ S] − E[v(S) | i ∉ S], each size weighted as Shapley's definition does. The coalitions are
    those of :func:`leverage_shap`, and where all can be paid the values are exact, as the authors' are.

    Source: Witter et al. 2025, "Regression-adjusted Monte Carlo Estimators for Shapley Values and Probabilistic
    Values", arXiv 2506.11849.
    """
    if (every := enumerated(game, budget)) is not None:
        return every
    players = game.players
    empty, full = ends(game)
    rows, chances = draws.distinct_pairs(players, budget - 2, seed)
    scores = game.values(rows)
    both = np.stack([np.zeros(players), np.ones(players)])
    found = np.zeros(players)
    pieces = (np.arange(len(rows)) // 2) % 2 == 0  # pairs stay together
    for own in (pieces, ~pieces):
        surrogate, values = fitted(np.concatenate([both, rows[own]]), np.r_[empty, full, scores[own]], both)
        rest, missed = rows[~own], scores[~own] - surrogate(rows[~own])
        start, end = np.array([empty, full]) - surrogate(both)
        reused = _reused(rest, missed, chances[~own] * (~own).mean(), float(start), float(end))
        found += (values + reused) / 2
    return Estimate(found + (full - empty - found.sum()) / players)


def quadratic(rows: Array, scores: Array, both: Array) -> Surrogate:
    """Ridge regression on single segments and pairs, of a weight that leave-one-out errors choose."""
    players = rows.shape[1]
    first, second = np.triu_indices(players, 1)

    def features(points: Array) -> Array:
        signs = 2 * points - 1
        return np.concatenate([signs * np.sqrt(players), signs[:, first] * signs[:, second]], 1)

    left, mean = features(rows), scores.mean()
    u, s, vt = np.linalg.svd(left, full_matrices=False)
    best, slopes = np.inf, np.zeros(left.shape[1])
    for weight in np.geomspace(1e-2, 1e5, 22):
        part = s**2 / (s**2 + weight)
        errors = (scores - mean - (u * part) @ (u.T @ (scores - mean))) / np.maximum(1 - ((u * part) * u).sum(1), 1e-9)
        if (score := float(errors @ errors)) < best:
            best, slopes = score, vt.T @ (s / (s**2 + weight) * (u.T @ (scores - mean)))
    # a product of two signs is even, and has no Shapley values
    return lambda points: features(points) @ slopes + mean, 2 * np.sqrt(players) * slopes[:players]


def trees(rows: Array, scores: Array, both: Array) -> Surrogate:
    """Boosted trees, whose Shapley values shap's ``TreeExplainer`` computes: a proxy as of ProxySPEX."""
    import shap
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(n_estimators=100, max_depth=3, learning_rate=0.1, subsample=0.8, random_state=0)
    model.fit(rows, scores)
    explainer = shap.TreeExplainer(model, both[:1], feature_perturbation="interventional")
    return lambda points: model.predict(points), np.asarray(explainer.shap_values(both[1:]), float).reshape(-1)


def boosted_trees(game: Game, budget: int, seed: int) -> Estimate:
    """Shapley values of boosted trees fitted to all coalitions, without a correction.

    The coalitions are those of :func:`leverage_shap`.

    Source: Butler et al. 2025, "ProxySPEX", arXiv 2505.17495, with shap's exact values in place of a sparse transform.
    """
    players = game.players
    empty, full = ends(game)
    rows, _ = draws.distinct_pairs(players, budget - 2, seed)
    both = np.stack([np.zeros(players), np.ones(players)])
    _, values = trees(np.concatenate([both, rows]), np.r_[empty, full, game.values(rows)], both)
    return Estimate(values + (full - empty - values.sum()) / players)


def _reused(rows: Array, scores: Array, chances: Array, start: float, end: float) -> Array:
    """Shapley values (K,) by maximal sample reuse from coalitions (n, K) and the chances (n,) of each to be among them.

    φ_i = (v(N) − v(N∖i) + v(i) − v(∅)) / K + …: the ends are known, and each other coalition stands for its size.
    """
    players = rows.shape[1]
    sizes = rows.sum(1).astype(int)
    with_it = np.array([1 / (players * comb(players - 1, size - 1)) for size in sizes])
    without = np.array([1 / (players * comb(players - 1, size)) for size in sizes])
    terms = np.where(rows > 0, with_it[:, None], -without[:, None]) * (scores / chances)[:, None]
    return np.asarray(terms.sum(0) + (end - start) / players)
