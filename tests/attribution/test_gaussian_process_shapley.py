"""Shapley values by Gaussian processes: closed forms by their definition, exact games, and errors that cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import comb

import pytest
import torch
from torch import Tensor

from imagexplain.attribution.gaussian_process_shapley import (
    Constant,
    Interactions,
    Kernel,
    MainEffects,
    Prior,
    Slopes,
    shapley_posterior,
)
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


def prior_of(*kernels: Kernel, noise: float = -20.0, spread: float = 0.0) -> Prior:
    """The kernels with weight 1 each, and hardly any noise."""
    weights = torch.tensor([0.0] * len(kernels) + [noise] * 3, dtype=torch.float64)
    return Prior(kernels, weights, torch.ones(kernels[0].covariance().shape[0], dtype=torch.float64), spread)


def couplings(groups: int) -> Tensor:
    """Everything, and two neighbourhoods that overlap."""
    strength = torch.linspace(0.2, 0.8, groups, dtype=torch.float64)
    return torch.stack([strength, *(strength * (torch.arange(groups) // 2 != half) for half in (0, 1))])


KERNELS: dict[str, Callable[[int], Kernel]] = {
    "main effects": lambda groups: MainEffects(torch.eye(groups).double() + 0.5),
    "interactions": lambda groups: Interactions(couplings(groups)),
    "constant": Constant,
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


@pytest.mark.parametrize("name", KERNELS)
def test_the_closed_forms_of_slopes_are_derivatives(name: str) -> None:
    """Scores are linear in each sign: a difference of two is the slope between them, and exact."""
    kernel, generator = KERNELS[name](4), torch.Generator().manual_seed(1)
    signs = 2 * all_coalitions(4).double() - 1
    points = 2 * torch.rand(3, 4, generator=generator, dtype=torch.float64) - 1
    # a score within the cube is the mean over its corners, each by the chance that it is drawn
    chances = ((1 + points.unsqueeze(1) * signs) / 2).prod(2)  # (3, 16)
    own = ((1 + points.unsqueeze(1) * signs) / 2).unsqueeze(3) + torch.zeros(4, dtype=torch.float64)
    own.diagonal(dim1=2, dim2=3).copy_((signs / 2).expand(3, 16, 4))  # the factor of a group, or its derivative
    slopes = own.prod(2).transpose(1, 2).flatten(0, 1)  # (3 · 4, 16)
    assert chances.sum(1).tolist() == pytest.approx([1.0] * 3)
    gram = kernel.gram(signs, signs)
    torch.testing.assert_close(kernel.gram_slopes(signs, points), gram @ slopes.T)
    torch.testing.assert_close(kernel.slopes_gram(points), slopes @ gram @ slopes.T)
    torch.testing.assert_close(kernel.cross_slopes(points), kernel.cross(signs) @ slopes.T)


def test_slopes_alone_give_the_values_of_an_additive_game() -> None:
    effects = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    slopes = Slopes(torch.full((1, 3), 0.25), effects.unsqueeze(0))
    nothing = torch.zeros(0, 3, dtype=torch.bool)
    prior = prior_of(MainEffects(torch.eye(3).double()))
    found = shapley_posterior(nothing, torch.zeros(0), 1.0, 3.5, prior, slopes)
    torch.testing.assert_close(found.values, effects, atol=1e-5, rtol=0)


def test_slopes_that_contradict_the_scores_are_found_to_be_biased() -> None:
    """The evidence takes their word where it agrees with scores, and only there."""
    generator = torch.Generator().manual_seed(5)
    effects = torch.randn(8, generator=generator, dtype=torch.float64)
    coalitions = torch.rand(14, 8, generator=generator) < 0.5
    scores, full = coalitions.double() @ effects, effects.sum().item()
    presence = torch.rand(6, 8, generator=generator)
    prior = prior_of(MainEffects(torch.eye(8).double()), noise=-6.0, spread=4.0)
    prior.weights[1] = -20.0
    biases = []
    for slopes in (effects, -effects):
        found = shapley_posterior(coalitions, scores, 0.0, full, prior, Slopes(presence, slopes.expand(6, 8)))
        biases.append((found.weights[-1] - found.weights[0]).item())
        assert (found.values - effects).abs().max() < 0.1
    assert biases[1] > biases[0] + 3


def test_an_additive_game_is_exact_from_as_many_coalitions_as_groups_less_one() -> None:
    effects = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
    coalitions = torch.eye(6).bool()[:5] | torch.eye(6).bool()[[1, 2, 3, 4, 2]]  # with the odd cycle of the first three
    scores = coalitions.double() @ effects + 4.0
    found = shapley_posterior(coalitions, scores, 4.0, 10.0, prior_of(MainEffects(torch.eye(6).double())))
    torch.testing.assert_close(found.values, effects, atol=1e-5, rtol=0)
    assert found.errors.max() < 1e-3


def test_equal_groups_have_equal_values() -> None:
    """max(s) over three groups: each has a third, whichever coalition is known, for one of each size tells all."""
    coalitions = torch.cat([torch.eye(3).bool(), ~torch.eye(3).bool()])
    prior = prior_of(MainEffects(torch.eye(3).double()), Interactions(torch.full((1, 3), 0.5).double()))
    found = shapley_posterior(coalitions, torch.ones(6), 0.0, 1.0, prior)
    torch.testing.assert_close(found.values, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_all_coalitions_leave_no_error() -> None:
    scores = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = prior_of(Constant(5), Interactions(torch.full((1, 5), 0.6).double()), noise=-30.0, spread=1.0)
    empty, full = scores[0].item(), scores[-1].item()
    found = shapley_posterior(all_coalitions(5)[1:-1], scores[1:-1], empty, full, prior)
    torch.testing.assert_close(found.values, shapley_values(scores), atol=1e-4, rtol=0)
    assert found.errors.max() < 1e-3


@pytest.mark.parametrize("known", [0, 1, 7, 40])
def test_any_coalitions_sum_to_the_difference_of_the_ends(known: int) -> None:
    generator = torch.Generator().manual_seed(known)
    coalitions = torch.rand(known, 9, generator=generator) < 0.5
    scores = torch.randn(known, generator=generator, dtype=torch.float64)
    prior = prior_of(MainEffects(torch.eye(9).double()), Interactions(couplings(9)), noise=-2.0, spread=1.0)
    found = shapley_posterior(coalitions, scores, -1.0, 2.5, prior)
    assert found.values.sum().item() == pytest.approx(3.5, abs=1e-12)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_errors_cover_the_values_of_games_drawn_from_the_prior(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    groups, members = 6, all_coalitions(6)
    prior = prior_of(
        Constant(groups), MainEffects(torch.eye(groups).double() / groups), Interactions(couplings(groups))
    )
    signs = 2 * members.double() - 1
    covariance = sum((kernel.gram(signs, signs) for kernel in prior.kernels), torch.zeros(64, 64).double())
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(64).double())
    prior = replace(prior, spread=spread)
    within = []
    for _ in range(60):
        scores = root @ torch.randn(64, generator=generator, dtype=torch.float64)
        some = 1 + torch.randperm(62, generator=generator)[:20]
        found = shapley_posterior(members[some], scores[some], scores[0].item(), scores[-1].item(), prior)
        within.append((found.values - shapley_values(scores)).abs() < 1.96 * found.errors)
    assert 0.90 < torch.stack(within).double().mean() < 0.98


def test_what_has_no_score_has_no_value_and_what_never_changes_has_zero() -> None:
    coalitions, prior = torch.eye(3).bool(), prior_of(MainEffects(torch.eye(3).double()))
    unknown = shapley_posterior(coalitions, torch.tensor([1.0, torch.nan, 2.0]), 0.0, 1.0, prior)
    assert unknown.values.isnan().all() and unknown.errors.isnan().all()
    flat = shapley_posterior(coalitions, torch.full((3,), 2.0), 2.0, 2.0, prior)
    assert not flat.values.any() and not flat.errors.any()


def test_arguments_that_do_not_fit_are_named() -> None:
    prior = prior_of(MainEffects(torch.eye(3).double()))
    with pytest.raises(ArgumentError, match="coalitions: wanted"):
        shapley_posterior(torch.eye(3), torch.zeros(3), 0.0, 1.0, prior)
    with pytest.raises(ArgumentError, match="scores: wanted"):
        shapley_posterior(torch.eye(3).bool(), torch.zeros(2), 0.0, 1.0, prior)
    few = Slopes(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ArgumentError, match="slopes: wanted"):
        shapley_posterior(torch.eye(3).bool(), torch.zeros(3), 0.0, 1.0, prior, few)
    with pytest.raises(ArgumentError, match="prior: wanted"):
        shapley_posterior(torch.eye(3).bool(), torch.zeros(3), 0.0, 1.0, replace(prior, weights=torch.zeros(1)))
