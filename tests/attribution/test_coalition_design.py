"""Coalitions that are chosen, against the choice that tries each candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from imagexplain.attribution.coalition_design import CANDIDATES, designed_coalitions
from imagexplain.attribution.gaussian_process_shapley import (
    JITTER,
    Prior,
    drawn_coalitions,
    segment_prior,
    shapley_posterior,
    signs_of,
)


def prior_of(groups: int, neighbours: bool = False) -> Prior:
    """The prior of segments in a row, of which each touches the next."""
    generator = torch.Generator().manual_seed(groups)
    squares, colours = torch.rand(groups, generator=generator), torch.rand(groups, 3, generator=generator)
    prior = segment_prior(squares, colours, torch.eye(groups).roll(1, 0) + torch.eye(groups).roll(-1, 0), spread=0.0)
    weights = torch.cat([prior.weights[:4], prior.weights[5:]])
    return prior if neighbours else replace(prior, kernels=prior.kernels[:4], weights=weights)


def designed(prior: Prior, groups: int, count: int, seed: int) -> Tensor:
    """The designed coalitions of a series of draws."""
    return designed_coalitions(prior, drawn_coalitions(groups, CANDIDATES + count, seed), count)


def variance_left(prior: Prior, coalitions: Tensor) -> float:
    """Sum of the variances of the Shapley values once these coalitions' scores are known, in units of σ²."""
    signs, weights = signs_of(coalitions), prior.weights.exp()
    gram = sum(w * k.gram(signs, signs) for w, k in zip(weights, prior.kernels, strict=False))
    cross = sum(w * k.cross(signs) for w, k in zip(weights, prior.kernels, strict=False))
    before = sum(w * k.covariance() for w, k in zip(weights, prior.kernels, strict=False))
    assert isinstance(gram, Tensor) and isinstance(cross, Tensor) and isinstance(before, Tensor)
    gram = gram + (weights[-1] + JITTER * gram.diagonal().mean()) * torch.eye(len(gram))
    return float((before - cross @ torch.linalg.solve(gram, cross.T)).trace())


def test_each_chosen_coalition_leaves_the_smallest_sum_of_variances() -> None:
    groups, count, prior = 8, 9, prior_of(8)
    rows = designed(prior, groups, count, 3)
    everything = drawn_coalitions(groups, 2**groups, 3)  # of 127 pairs all are candidates
    for step in range(5, count):
        least = min(variance_left(prior, torch.cat([rows[:step], row[None]])) for row in everything)
        assert variance_left(prior, rows[: step + 1]) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize(("groups", "count"), [(1, 4), (2, 4), (6, 20), (6, 31), (12, 1), (23, 74), (70, 33)])
def test_the_first_half_is_drawn_and_no_pair_comes_twice(groups: int, count: int) -> None:
    prior = prior_of(groups, neighbours=True)
    rows = designed(prior, groups, count, 1)
    assert rows.shape == (min(count, 2 ** (groups - 1) - 1), groups) and rows.dtype == torch.bool
    first = len(rows) - len(rows) // 2
    assert torch.equal(rows[:first], drawn_coalitions(groups, CANDIDATES + count, 1)[:first])
    both = torch.cat([rows, ~rows])
    assert len(both.unique(dim=0)) == len(both)
    assert torch.equal(rows, designed(prior, groups, count, 1))


def test_half_chosen_coalitions_leave_smaller_errors_than_drawn_ones() -> None:
    groups, count, prior = 14, 20, prior_of(14, neighbours=True)
    effects = torch.linspace(0, 1, groups).double()
    left = []
    for rows in (designed(prior, groups, count, 0), drawn_coalitions(groups, count, 0)):
        scores = (2 * rows.double() - 1) @ effects
        left.append(shapley_posterior(rows, scores / 2, effects.sum().item(), prior).errors.square().sum())
    assert left[0] < 0.95 * left[1]
