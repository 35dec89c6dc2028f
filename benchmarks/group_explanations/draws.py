"""Coalitions as estimators draw them. The first draws of a longer series are those of a shorter one."""

from __future__ import annotations

import numpy as np

from benchmarks.group_explanations.game import Array


def kernel_pairs(players: int, count: int, seed: int) -> Array:
    """Coalitions (count, K), 0 and 1, of sizes drawn by the Shapley kernel, each followed by its complement."""
    random = np.random.default_rng([seed, 1])
    sizes = np.arange(1, players)
    chances = 1 / (sizes * (players - sizes))
    return _paired(players, count, random, lambda: int(random.choice(sizes, p=chances / chances.sum())))


def uniform_size_pairs(players: int, count: int, seed: int) -> Array:
    """Coalitions whose sizes are drawn evenly from 1 … K−1, each with its complement: by leverage scores."""
    random = np.random.default_rng([seed, 2])
    return _paired(players, count, random, lambda: int(random.integers(1, players)))


def orders(players: int, count: int, seed: int) -> Array:
    """Coalitions (count, K) along random orders, each forwards and backwards, without the empty and the full one."""
    random = np.random.default_rng([seed, 3])
    found: list[Array] = []
    while len(found) * (players - 1) < count:
        order = random.permutation(players)
        for one in (order, order[::-1]):
            rank = np.argsort(one)
            found.append((rank < np.arange(1, players)[:, None]).astype(float))
    return np.concatenate(found)[:count]


def halves(players: int, count: int, seed: int) -> Array:
    """Coalitions (count, K) with each player in by one half, as LIME draws them."""
    return np.random.default_rng([seed, 4]).integers(0, 2, (count, players)).astype(float)


def coefficients(players: int, count: int, seed: int) -> Array:
    """Coefficients (count, K), uniform on 0 … 1."""
    return np.random.default_rng([seed, 5]).random((count, players)).astype(np.float32).astype(float)


def _paired(players: int, count: int, random: np.random.Generator, size) -> Array:  # type: ignore[no-untyped-def]
    found = np.zeros((count + 1, players))
    for row in range(0, count, 2):
        found[row, random.permutation(players)[: size()]] = 1
        found[row + 1] = 1 - found[row]
    return found[:count]
