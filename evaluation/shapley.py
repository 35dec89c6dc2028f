"""Shapley values of the groups: exact, by sampled orders, and as Captum's KernelShap estimates them."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from captum._utils.models.model import Model
from captum.attr import KernelShap
from torch import Tensor
from torch.utils.data import DataLoader

from imagexplain.attribution.paths.path_integral import Forward

MOST_GROUPS = 12


class Game(Protocol):
    """Scores of coalitions of groups, such as :class:`evaluation.coalition_game.CoalitionGame`."""

    @property
    def groups(self) -> int:
        """Number G of groups."""

    def scores(self, coalitions: Tensor) -> Tensor:
        """Scores (N,) float64 of coalitions (N, G) bool."""


def exact(game: Game) -> Tensor:
    """(G,) float64 Shapley values from all 2^G coalitions.

    Raises:
        ValueError: more groups than can be enumerated.

    Source: Shapley, "A Value for n-Person Games", 1953.
    """
    count = game.groups
    if count > MOST_GROUPS:
        raise ValueError(f"groups: wanted at most {MOST_GROUPS} to enumerate, got {count}")
    numbers = torch.arange(2**count)
    coalitions = (numbers[:, None] >> torch.arange(count)) % 2 == 1
    scores = game.scores(coalitions)
    weights = torch.tensor([1 / (count * math.comb(count - 1, size)) for size in range(count)], dtype=torch.float64)
    values = torch.empty(count, dtype=torch.float64)
    for group in range(count):
        without = numbers[~coalitions[:, group]]
        gain = scores[without | 1 << group] - scores[without]
        values[group] = (weights[coalitions[without].sum(1)] * gain).sum()
    return values


def by_orders(game: Game, orders: int, generator: torch.Generator) -> Tensor:
    """(G,) float64: each group's gain as the groups join in random orders, each order taken forwards and backwards.

    Source: Castro, Gómez, Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009.
    """
    values = torch.zeros(game.groups, dtype=torch.float64)
    for _ in range(orders):
        order = torch.randperm(game.groups, generator=generator)
        for one in (order, order.flip(0)):
            values[one] += game.scores(joining(one)).diff()
    return values / (2 * orders)


def joining(order: Tensor) -> Tensor:
    """(G + 1, G) bool: nobody, then one group more at a time in that order (G,)."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank < torch.arange(len(order) + 1)[:, None]


def kernel_shap(
    forward: Forward, image: Tensor, baseline: Tensor, segments: Tensor, target: int, samples: int, seed: int
) -> Tensor:
    """(G,) float64 Shapley values as Captum's KernelShap estimates them from that many samples.

    Captum fits with scikit-learn; here the same weighted least squares is solved in torch, in double precision.

    Source: Lundberg, Lee, arXiv 1705.07874.
    """
    explainer = KernelShap(forward)
    explainer.interpretable_model = WeightedLeastSquares()
    with torch.random.fork_rng(devices=[]):  # Captum draws from the global generator
        torch.manual_seed(seed)
        scores = explainer.attribute(
            image.unsqueeze(0),
            baselines=baseline.unsqueeze(0),
            target=target,
            feature_mask=segments.expand(1, *image.shape),
            n_samples=samples,
            perturbations_per_eval=min(samples, 100),
            return_input_shape=False,
        )
    return scores.flatten().double()


class WeightedLeastSquares(Model):
    """Least squares with an intercept and a weight for each sample; of several solutions that of smallest norm."""

    def fit(self, train_data: DataLoader, **kwargs: Any) -> None:
        rows, outcomes, weights = (torch.cat(parts).double() for parts in zip(*train_data, strict=True))
        weights = weights.flatten() / weights.sum()
        means, mean = weights @ rows, weights @ outcomes
        root = weights.sqrt()
        left, right = (rows - means) * root[:, None], (outcomes - mean) * root
        self._slopes = torch.linalg.lstsq(left, right[:, None], driver="gelsd").solution.flatten()
        self._intercept = mean - means @ self._slopes

    def representation(self) -> Tensor:
        return self._slopes.unsqueeze(0)

    def __call__(self, x: Tensor) -> Tensor:
        return x.double() @ self._slopes + self._intercept
