"""Coalitions as estimators draw them; the first of a longer series, but of distinct ones, are those of a shorter."""

from __future__ import annotations

from math import comb

import numpy as np

from benchmarks.group_explanations.game import Array


def kernel_pairs(players: int, count: int, seed: int) -> Array:
    """Coalitions (count, K), 0 and 1, of sizes drawn by the Shapley kernel, each followed by its complement."""
    random = np.random.default_rng([seed, 1])
    sizes = np.arange(1, players)
    chances = 1 / (sizes * (players - sizes))
    return _paired(players, count, random, lambda: int(random.choice(sizes, p=chances / chances.sum())))


def kernel(rows: Array) -> Array:
    """The Shapley kernel (n,) of coalitions (n, K), but for a factor."""
    players = rows.shape[1]
    return np.array([1 / (comb(players, size) * size * (players - size)) for size in rows.sum(1).astype(int).tolist()])


def distinct_pairs(players: int, count: int, seed: int) -> tuple[Array, Array]:
    """Distinct coalitions, each followed by its complement, every size as often as the others as far as it has enough.

    Of each size as many are taken as are expected, rounded at random so that the chances stay what they are.

    Returns:
        Coalitions (n, K), n the even count or all that there are, and the chance (n,) of each to be among them.
    """
    random = np.random.default_rng([seed, 2])
    sizes = range(1, players // 2 + 1)
    pairs = np.array([comb(players, size) // (2 if 2 * size == players else 1) for size in sizes])
    shares = np.array([0.5 if 2 * size == players else 1.0 for size in sizes])  # the middle size is its own complement
    wanted = min(count // 2, int(pairs.sum()))
    expected = _filled(pairs, shares, wanted)
    ends = np.cumsum(expected)
    ends[-1] = wanted
    taken = np.diff(np.floor(np.r_[0, ends] + random.random())).astype(int).clip(0, pairs)
    found, chances = [], []
    for size, number, each, mean in zip(sizes, pairs.tolist(), taken.tolist(), expected.tolist(), strict=True):
        for index in random.choice(number, each, replace=False).tolist():
            found.append(_combination(index, players, size))
            chances.append(mean / number)
    order = random.permutation(len(found))
    rows = np.array(found).reshape(-1, players)[order]
    return np.stack([rows, 1 - rows], 1).reshape(-1, players), np.repeat(np.array(chances)[order], 2)


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


def _filled(most: Array, shares: Array, total: int) -> Array:
    """Parts of a total in proportion to shares, none above its most."""
    found = np.zeros(len(most))
    free = np.ones(len(most), bool)
    while free.any():
        found[free] = (total - most[~free].sum()) * shares[free] / shares[free].sum()
        over = free & (found >= most)
        if not over.any():
            break
        found[over] = most[over]
        free &= ~over
    return found


def _combination(index: int, players: int, size: int) -> Array:
    """The coalition (K,) of that number among those of a size; those with the first player come first."""
    found = np.zeros(players)
    for player in range(players):
        with_it = comb(players - 1 - player, size - 1) if size else 0
        if index < with_it:
            found[player] = 1
            size -= 1
        else:
            index -= with_it
    return found
