"""Shapley values by Gaussian processes: closed forms by their definition, exact games, and errors that cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import comb

import pytest
import torch
from torch import Tensor

from imagexplain.attribution.gaussian_process_shapley import (
    Interactions,
    Kernel,
    MainEffects,
    Prior,
    drawn_coalitions,
    exact_shapley_values,
    segment_prior,
    shapley_posterior,
)
from imagexplain.attribution.uncertainty import standard_errors
from imagexplain.errors import ArgumentError


def all_coalitions(groups: int) -> Tensor:
    """Coalitions (2^G, G), bool, the empty one first and the full one last."""
    return (torch.arange(2**groups)[:, None] >> torch.arange(groups)) % 2 == 1


def shapley_values(scores: Tensor) -> Tensor:
    """Shapley values (G, …) by their definition, of scores (2^G, …) in the order of :func:`all_coalitions`."""
    groups = len(scores).bit_length() - 1
    members, values = all_coalitions(groups), []
    for group in range(groups):
        without = torch.arange(2**groups)[~members[:, group]]
        weight = torch.tensor([1 / (groups * comb(groups - 1, size)) for size in members[without].sum(1).tolist()])
        gains = scores[without + 2**group] - scores[without]
        values.append(torch.tensordot(weight.double(), gains.double(), 1))
    return torch.stack(values)


def odd_parts(scores: Tensor, some: Tensor) -> Tensor:
    """Odd parts of some coalitions, by their numbers, of scores (2^G,)."""
    return (scores[some] - scores[len(scores) - 1 - some]) / 2


def prior_of(*kernels: Kernel, noise: float = -20.0, spread: float = 0.0) -> Prior:
    """The kernels with weight 1 each, and hardly any noise."""
    return Prior(kernels, torch.tensor([0.0] * len(kernels) + [noise], dtype=torch.float64), spread)


def couplings(groups: int) -> Tensor:
    """Everything, and two neighbourhoods that overlap."""
    strength = torch.linspace(0.2, 0.8, groups, dtype=torch.float64)
    return torch.stack([strength, *(strength * (torch.arange(groups) // 2 != half) for half in (0, 1))])


KERNELS: dict[str, Callable[[int], Kernel]] = {
    "main effects": lambda groups: MainEffects(torch.eye(groups).double() + 0.5),
    "interactions": lambda groups: Interactions(couplings(groups)),
}


@pytest.mark.parametrize("groups", [3, 4, 5])
@pytest.mark.parametrize("name", KERNELS)
def test_the_closed_forms_are_shapley_values_of_the_kernel(name: str, groups: int) -> None:
    kernel, signs = KERNELS[name](groups), 2 * all_coalitions(groups).double() - 1
    gram = kernel.gram(signs, signs)
    torch.testing.assert_close(gram, gram.T)
    cross = shapley_values(gram)  # (G, 2^G)
    torch.testing.assert_close(kernel.cross(signs), cross)
    torch.testing.assert_close(kernel.covariance(), shapley_values(cross.T))


def test_interactions_have_variance_1_and_are_odd() -> None:
    kernel, signs = Interactions(couplings(5)), 2 * all_coalitions(5).double() - 1
    torch.testing.assert_close(kernel.gram(signs, signs).diagonal(), torch.ones(32).double())
    torch.testing.assert_close(kernel.gram(signs, -signs), -kernel.gram(signs, signs))


def test_an_additive_game_is_exact_from_as_many_coalitions_as_groups_less_one() -> None:
    effects = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
    coalitions = torch.eye(6).bool()[:5] | torch.eye(6).bool()[[1, 2, 3, 4, 2]]  # with the odd cycle of the first three
    odd = (2 * coalitions.double() - 1) @ effects / 2
    found = shapley_posterior(coalitions, odd, 6.0, prior_of(MainEffects(torch.eye(6).double())))
    torch.testing.assert_close(found.values, effects, atol=1e-5, rtol=0)
    assert found.errors.max() < 1e-3


def test_equal_groups_have_equal_values() -> None:
    """max(s) over three groups: each has a third, whichever coalition is known, for one of each size tells all."""
    prior = prior_of(MainEffects(torch.eye(3).double()), Interactions(torch.full((1, 3), 0.5).double()))
    found = shapley_posterior(torch.eye(3).bool(), torch.zeros(3), 1.0, prior)
    torch.testing.assert_close(found.values, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_all_odd_parts_give_the_values_of_the_definition() -> None:
    for groups in (1, 2, 5):
        scores = torch.randn(2**groups, generator=torch.Generator().manual_seed(groups), dtype=torch.float64)
        drawn = drawn_coalitions(groups, 2**groups, 0)
        numbers = (drawn.long() << torch.arange(groups)).sum(1)
        found = exact_shapley_values(drawn, odd_parts(scores, numbers), (scores[-1] - scores[0]).item())
        torch.testing.assert_close(found, shapley_values(scores))


def test_the_covariance_is_of_errors_that_cancel() -> None:
    """All groups together have no error: their sum is known."""
    prior = prior_of(MainEffects(torch.eye(6).double()), Interactions(couplings(6)))
    found = shapley_posterior(torch.eye(6).bool()[:3], torch.tensor([1.0, 2.0, -1.0]), 3.0, prior)
    torch.testing.assert_close(found.covariance, found.covariance.T)
    torch.testing.assert_close(found.errors.square(), found.covariance.diagonal())
    sums = torch.tensor([[1.0] * 6, [1.0, 1.0, 0, 0, 0, 0]]).T
    whole, two = standard_errors(found.covariance, sums)
    assert whole < 1e-3 < found.errors.min()
    assert two.square().item() == pytest.approx(found.covariance[:2, :2].sum().item())


def test_all_coalitions_leave_no_error() -> None:
    scores = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = prior_of(Interactions(torch.full((1, 5), 0.6).double()), noise=-30.0, spread=1.0)
    odd, total = odd_parts(scores, torch.arange(1, 16)), (scores[-1] - scores[0]).item()
    found = shapley_posterior(all_coalitions(5)[1:16], odd, total, prior)
    torch.testing.assert_close(found.values, shapley_values(scores), atol=1e-4, rtol=0)
    assert found.errors.max() < 1e-3


@pytest.mark.parametrize("known", [0, 1, 7, 40, 320])
def test_any_coalitions_sum_to_the_difference_of_the_ends(known: int) -> None:
    generator = torch.Generator().manual_seed(known)
    coalitions = torch.rand(known, 9, generator=generator) < 0.5
    odd = torch.randn(known, generator=generator, dtype=torch.float64)
    prior = prior_of(MainEffects(torch.eye(9).double()), Interactions(couplings(9)), noise=-2.0, spread=1.0)
    found = shapley_posterior(coalitions, odd, 3.5, prior)
    assert found.values.sum().item() == pytest.approx(3.5, abs=1e-12)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_errors_cover_the_values_of_games_drawn_from_the_prior(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    groups, members = 6, all_coalitions(6)
    prior = prior_of(MainEffects(torch.eye(groups).double() / groups), Interactions(couplings(groups)))
    signs = 2 * members.double() - 1
    covariance = sum((kernel.gram(signs, signs) for kernel in prior.kernels), torch.zeros(64, 64).double())
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(64).double())
    prior = replace(prior, spread=spread)
    within = []
    for _ in range(60):
        scores = root @ torch.randn(64, generator=generator, dtype=torch.float64)
        some = 1 + torch.randperm(31, generator=generator)[:10]
        total = (scores[-1] - scores[0]).item()
        found = shapley_posterior(members[some], odd_parts(scores, some), total, prior)
        within.append((found.values - shapley_values(scores)).abs() < 1.96 * found.errors)
    assert 0.90 < torch.stack(within).double().mean() < 0.98


def segments(groups: int) -> Prior:
    """A prior of segments in a row, of different sizes and colours."""
    generator = torch.Generator().manual_seed(groups)
    squares, colours = torch.rand(groups, generator=generator), torch.rand(groups, 3, generator=generator)
    numbers = torch.arange(groups)
    return segment_prior(squares, colours, (numbers - numbers.unsqueeze(1)).abs() == 1)


@pytest.mark.parametrize(("groups", "count"), [(2, 5), (6, 10), (6, 100), (12, 30), (70, 20)])
def test_drawn_coalitions_differ_and_stand_for_their_complements(groups: int, count: int) -> None:
    rows = drawn_coalitions(groups, count, 0)
    assert rows.shape == (min(count, 2 ** (groups - 1) - 1), groups) and rows.dtype == torch.bool
    assert rows.sum(1).min() >= 1 and rows.sum(1).max() <= groups - 1
    both = torch.cat([rows, ~rows])
    assert len(both.unique(dim=0)) == len(both)


def test_the_sizes_of_drawn_coalitions_are_even() -> None:
    sizes = drawn_coalitions(40, 4000, 0).sum(1)
    counts = torch.bincount(torch.minimum(sizes, 40 - sizes), minlength=21)[1:]
    # of 39 sizes, two by two, each has 205 and some more, as of single groups there are only 40
    assert counts[0] > 35 and ((counts[2:19] - 210).abs() < 50).all() and abs(counts[19] - 105) < 35


def test_all_coalitions_come_in_the_order_of_draws_of_even_sizes() -> None:
    first = torch.stack([drawn_coalitions(8, 127, seed)[0].sum() for seed in range(2000)])
    counts = torch.bincount(torch.minimum(first, 8 - first), minlength=5)[1:]
    # of 7 sizes, two by two, each comes first in 2/7 of 2,000 series, and that of 4 in 1/7
    assert ((counts[:3] - 571).abs() < 75).all() and abs(counts[3] - 286) < 60


def test_segments_without_a_difference_from_the_baseline_or_without_colours_have_a_prior() -> None:
    prior = segment_prior(torch.zeros(3), torch.zeros(3, 1), torch.zeros(3, 3))
    found = shapley_posterior(torch.eye(3).bool(), torch.zeros(3), 3.0, prior)
    torch.testing.assert_close(found.values, torch.ones(3).double(), atol=1e-6, rtol=0)


def test_what_has_no_score_has_no_value_and_what_never_changes_has_zero() -> None:
    coalitions, prior = torch.eye(3).bool(), prior_of(MainEffects(torch.eye(3).double()))
    unknown = shapley_posterior(coalitions, torch.tensor([1.0, torch.nan, 2.0]), 1.0, prior)
    assert unknown.values.isnan().all() and unknown.errors.isnan().all()
    flat = shapley_posterior(coalitions, torch.zeros(3), 0.0, prior)
    assert not flat.values.any() and not flat.errors.any()


def test_arguments_that_do_not_fit_are_named() -> None:
    prior = prior_of(MainEffects(torch.eye(3).double()))
    with pytest.raises(ArgumentError, match="coalitions: wanted"):
        shapley_posterior(torch.eye(3), torch.zeros(3), 1.0, prior)
    with pytest.raises(ArgumentError, match="odd: wanted"):
        shapley_posterior(torch.eye(3).bool(), torch.zeros(2), 1.0, prior)
    with pytest.raises(ArgumentError, match="prior: wanted"):
        shapley_posterior(torch.eye(3).bool(), torch.zeros(3), 1.0, replace(prior, weights=torch.zeros(1)))
