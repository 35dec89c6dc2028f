"""Estimators that people use, at an equal cost: those of Captum, shap and LIME, and this library's own."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from captum.attr import KernelShap
from torch import Tensor

from benchmarks.group_explanations import draws
from benchmarks.group_explanations.estimates import Estimate, ends, leggauss
from benchmarks.group_explanations.game import Array, Game
from benchmarks.group_explanations.reference import exact
from evaluation.shapley import WeightedLeastSquares


class TooDearError(Exception):
    """Fewer forward passes than a single estimate takes."""


def captum_kernel_shap(game: Game, budget: int, seed: int) -> Estimate:
    """Captum's ``KernelShap``, whose samples include both ends, fitted in float64 instead of by scikit-learn."""

    def scores(rows: Tensor) -> Tensor:
        return torch.from_numpy(game.values(rows.numpy().astype(float)))

    explainer = KernelShap(scores)
    explainer.interpretable_model = WeightedLeastSquares()
    players = game.players
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        found = explainer.attribute(
            torch.ones(1, players),
            baselines=torch.zeros(1, players),
            feature_mask=torch.arange(players)[None],
            n_samples=budget,
            return_input_shape=False,
        )
    return Estimate(found.flatten().double().numpy())


def shap_kernel_explainer(game: Game, budget: int, seed: int, regularization: object) -> Estimate:
    """shap's ``KernelExplainer``: small sizes all, then pairs, distinct; ``l1_reg`` as it names them."""
    import shap

    before = np.random.get_state()  # noqa: NPY002 (which shap draws from)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = shap.KernelExplainer(game.values, np.zeros((1, game.players)))
            found = explainer.shap_values(
                np.ones((1, game.players)), nsamples=budget - 2, l1_reg=regularization, silent=True
            )
    finally:
        np.random.set_state(before)  # noqa: NPY002
    return Estimate(np.asarray(found, float).reshape(-1))


def lime(game: Game, budget: int, seed: int) -> Estimate:
    """LIME for images with its defaults: halves, a kernel of width 0.25 on the cosine distance, ridge of weight 1.

    Source: Ribeiro, Singh, Guestrin, arXiv 1602.04938, and ``lime_image`` of its authors' package.
    """
    players = game.players
    rows = np.concatenate([np.ones((1, players)), draws.halves(players, budget - 1, seed)])
    distance = 1 - np.sqrt(rows.mean(1))  # the cosine of a coalition and the full one
    weights = np.sqrt(np.exp(-((distance / 0.25) ** 2)))
    scores = game.values(rows)
    total = weights.sum()
    left, right = rows - weights @ rows / total, scores - weights @ scores / total
    gram = (left * weights[:, None]).T @ left + np.eye(players)
    return Estimate(np.linalg.solve(gram, (left * weights[:, None]).T @ right))


def orders(game: Game, budget: int, seed: int) -> Estimate:
    """Gains along random orders, each forwards and backwards; as many whole orders as can be paid.

    Raises:
        TooDearError: not even one order can be paid.

    Source: Castro, Gómez, Tejada 2009; antithetic: Mitchell et al., arXiv 2104.12199.
    """
    players = game.players
    empty, full = ends(game)
    count = (budget - 2) // (players - 1)
    if count < 1:
        raise TooDearError
    inner = draws.orders(players, count * (players - 1), seed)
    scores = game.values(inner).reshape(count, players - 1)
    rows = inner.reshape(count, players - 1, players)
    shape = (count, 1, players)
    path = np.concatenate([np.zeros(shape), rows, np.ones(shape)], 1)
    along = np.concatenate([np.full((count, 1), empty), scores, np.full((count, 1), full)], 1)
    gains = (np.diff(path, axis=1) * np.diff(along, axis=1)[..., None]).sum(1)  # (count, K)
    both = [gains[start : start + 2].mean(0) for start in range(0, count, 2)]
    errors = np.std(both, axis=0, ddof=1) / np.sqrt(len(both)) if len(both) > 1 else None
    return Estimate(gains.mean(0), errors)


def paired_kernel_shap(game: Game, budget: int, seed: int) -> Estimate:
    """Least squares on pairs of complements, or on all coalitions, the sum kept exactly: our ``kernel_shap``.

    Source: Covert, Lee, arXiv 2012.01536.
    """
    if (found := enumerated(game, budget)) is not None:
        return found
    empty, full = ends(game)
    rows = draws.kernel_pairs(game.players, (budget - 2) // 2 * 2, seed)
    return Estimate(constrained(rows, game.values(rows) - empty, full - empty))


def enumerated(game: Game, budget: int) -> Estimate | None:
    """Exact values from all coalitions; None where they cannot be paid."""
    return Estimate(exact(game).values) if 2**game.players <= budget else None


def straight_path(game: Game, budget: int, price: float) -> Estimate:
    """Integrated gradients of the segments: the gradient at equal coefficients, integrated."""
    count = next(n for n in (20, 7, 3) if n * price <= budget or n == 3)  # 20 points are converged
    nodes, weights = leggauss(count)
    _, slopes = game.gradients(np.repeat(nodes[:, None], game.players, 1))
    return Estimate(weights @ slopes)


def random_gradients(game: Game, budget: int, price: float, seed: int) -> Estimate:
    """Mean gradient at coefficients that are uniformly random."""
    count = max(1, int((budget - 2) / price))
    _, slopes = game.gradients(draws.coefficients(game.players, count, seed))
    return Estimate(slopes.mean(0))


def constrained(rows: Array, gains: Array, total: float, weights: Array | None = None) -> Array:
    """Values (K,) with the sum total that fit gains (n,) of coalitions (n, K) best; of several the most equal ones."""
    share = rows.mean(1, keepdims=True)
    left, right = rows - share, gains - share[:, 0] * total
    root = np.ones(len(rows)) if weights is None else np.sqrt(weights)
    rest = np.linalg.lstsq(left * root[:, None], right * root, rcond=1e-11)[0]
    return np.asarray(total / rows.shape[1] + rest - rest.mean())
