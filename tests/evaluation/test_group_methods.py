"""Estimators of Shapley values as the benchmark compares them, on games whose values are known."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bench_group_methods import estimators, scored, table
from benchmarks.group_explanations import draws
from benchmarks.group_explanations.cases import few_superpixels
from benchmarks.group_explanations.chosen import chosen_coalitions
from benchmarks.group_explanations.estimates import Estimate
from benchmarks.group_explanations.game import Array, Facts, NotStoredError, SegmentGame, StoredGame, facts_of
from benchmarks.group_explanations.reference import converged, exact
from benchmarks.group_explanations.report import lead
from benchmarks.group_explanations.rivals import TooDearError, orders
from evaluation.cases import case as scene_case
from evaluation.shapley import MOST_GROUPS
from imagexplain.attribution.gaussian_process_shapley import drawn_coalitions, segment_prior, shapley_posterior
from tests.attribution.models import smooth_network
from tests.evaluation.subjects import PREPROCESS
from training.scenes import SceneSettings
from training.train_classifier import HELD_OUT_SEED

PLAYERS = 6
EFFECTS = np.array([3.0, -1.0, 0.5, 2.0, 0.25, 1.5])
RING = np.roll(np.eye(PLAYERS), 1, axis=1)
FACTS = Facts(np.ones(PLAYERS), np.ones(PLAYERS), RING + RING.T, np.zeros((PLAYERS, 3)), np.full(PLAYERS, np.nan))
EXACT_WHERE_ALL_ARE_PAID = (
    "shap KernelExplainer",
    "paired KernelShap (ours)",
    "leverage SHAP",
    "ridge to equal shares",
    "regression-adjusted, quadratic",
    "Gaussian process, half drawn and half chosen",
)
BIASED = ("LIME", "shap KernelExplainer, 10 features", "boosted trees", "regression-adjusted, trees")


class Additive:
    """A game that adds effects, 1 for nobody."""

    players = PLAYERS

    def values(self, coefficients: Array) -> Array:
        return np.asarray(1 + coefficients @ EFFECTS)

    def gradients(self, coefficients: Array) -> tuple[Array, Array]:
        return self.values(coefficients), np.tile(EFFECTS, (len(coefficients), 1))


class Pairs(Additive):
    """A game in which the first two count only together, besides."""

    def values(self, coefficients: Array) -> Array:
        return np.asarray(super().values(coefficients) + coefficients[:, 0] * coefficients[:, 1])


def stored(folder: Path, game: Additive) -> StoredGame:
    return StoredGame.at(folder / "game.npz", FACTS, lambda: game)


def found(game: StoredGame, cost: int) -> Mapping[str, Estimate]:
    return {name: estimator(cost) for name, estimator in estimators(game, 3.0, 0).items() if name not in BIASED}


def test_an_additive_game_is_exact_for_all_that_claim_it(tmp_path: Path) -> None:
    for name, estimate in found(stored(tmp_path, Additive()), 50).items():
        # shap leaves no coalition out where all can be had; Captum's ends have a weight of a million
        assert estimate.values == pytest.approx(EFFECTS, abs=5e-3), name


@pytest.mark.parametrize("name", EXACT_WHERE_ALL_ARE_PAID)
def test_all_coalitions_give_exact_values(name: str, tmp_path: Path) -> None:
    estimate = estimators(stored(tmp_path, Pairs()), 3.0, 0)[name]
    assert estimate(2**PLAYERS).values == pytest.approx([3.5, -0.5, *EFFECTS[2:]], abs=1e-9)


def test_an_estimator_that_a_case_cannot_pay_is_left_out(tmp_path: Path) -> None:
    game = stored(tmp_path, Additive())
    with pytest.raises(TooDearError):
        orders(game, PLAYERS, 0)
    rows = list(scored(game, 3.0, exact(game), ["orders, antithetic", "LIME"], (PLAYERS, 20), 1, None))
    measures = table([rows])
    assert (list(measures["orders, antithetic"]), list(measures["LIME"])) == (["20"], [str(PLAYERS), "20"])
    assert list(table([rows, rows[:-1]])["LIME"]) == [str(PLAYERS)]


def test_converged_values_are_those_of_the_definition(tmp_path: Path) -> None:
    estimate = converged(stored(tmp_path, Pairs()), FACTS, 200)
    assert estimate.values == pytest.approx([3.5, -0.5, *EFFECTS[2:]], abs=0.03)
    assert estimate.errors is not None
    assert 1e-3 < estimate.errors.max() < 0.02


def test_a_store_evaluates_once_and_says_what_it_lacks(tmp_path: Path) -> None:
    rows = draws.kernel_pairs(PLAYERS, 10, 0)
    game = stored(tmp_path, Additive())
    scores, slopes = game.values(rows), game.gradients(rows[:2])[1]
    game.save()

    def nobody() -> Additive:
        raise NotStoredError

    again = StoredGame.at(tmp_path / "game.npz", None, nobody)
    assert np.array_equal(again.values(rows[::-1]), scores[::-1])
    assert np.array_equal(again.gradients(rows[:2])[1], slopes)
    with pytest.raises(NotStoredError):
        again.gradients(rows[2:4])


def test_gradients_of_segments_are_derivatives_of_the_scores() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    segments = torch.arange(64).view(8, 8) // 16
    game = SegmentGame(smooth_network().double(), image, torch.zeros(3, 8, 8).double(), segments, 1)
    place, step = np.array([[0.25, 0.5, 0.75, 1.0]]), 2.0**-10
    _, slopes = game.gradients(place)
    for segment in range(4):
        shift = step * np.eye(4)[segment]
        rise = game.values(place + shift / 2) - game.values(place - shift / 2)
        assert slopes[0, segment] == pytest.approx(rise[0] / step, rel=1e-4)


def test_facts_of_segments() -> None:
    image, segments = torch.ones(3, 2, 2), torch.tensor([[0, 0], [1, 2]])
    facts = facts_of(image, torch.zeros(3, 2, 2), segments)
    assert facts.area.tolist() == [2, 1, 1]
    assert facts.squares.tolist() == [6, 3, 3]
    assert facts.borders.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize("draw", [draws.kernel_pairs, draws.orders, draws.halves])
def test_the_first_draws_of_a_longer_series_are_those_of_a_shorter_one(draw: object) -> None:
    assert callable(draw)
    assert np.array_equal(draw(7, 60, 1)[:21], draw(7, 21, 1))


def test_sizes_are_drawn_by_the_shapley_kernel() -> None:
    sizes = draws.kernel_pairs(5, 8000, 0).sum(1)
    kernel = np.array([comb(5, size) * 4 / (comb(5, size) * size * (5 - size)) for size in range(1, 5)])
    assert np.bincount(sizes.astype(int), minlength=6)[1:5] / 8000 == pytest.approx(kernel / kernel.sum(), abs=0.02)


@pytest.mark.parametrize(("players", "count"), [(5, 8), (6, 20), (7, 126), (8, 500)])
def test_pairs_are_distinct_and_chances_those_of_their_draws(players: int, count: int) -> None:
    series, every = 400, 2**players - 2
    often: dict[bytes, int] = {}
    for seed in range(series):
        rows, chances = draws.distinct_pairs(players, count, seed)
        assert len({row.tobytes() for row in rows}) == len(rows) == min(count, every)
        assert np.array_equal(rows[::2], 1 - rows[1::2])
        for row in rows:
            often[row.tobytes()] = often.get(row.tobytes(), 0) + 1
    rates = np.array([often[row.tobytes()] for row in rows]) / series
    assert rates == pytest.approx(chances, abs=4.5 * np.sqrt(0.25 / series) if count < every else 0)


def test_sizes_that_are_used_up_leave_more_to_the_others() -> None:
    """Of 7 segments, 7 pairs have a lone one; of 30 pairs the other 23 are shared by sizes of 21 and 35."""
    rows, chances = draws.distinct_pairs(7, 60, 0)
    sizes = rows.sum(1)
    assert (sizes == 1).sum() == 7
    assert chances[sizes == 1] == pytest.approx(1)
    assert chances[sizes == 2] == pytest.approx(11.5 / 21)
    assert chances[sizes == 3] == pytest.approx(11.5 / 35)


def test_chosen_coalitions_leave_less_variance_than_drawn_ones() -> None:
    groups, count, numbers = 14, 20, torch.arange(14)
    prior = segment_prior(torch.rand(groups), torch.rand(groups, 3), (numbers - numbers.unsqueeze(1)).abs() == 1, 0.0)
    left = []
    for rows in (chosen_coalitions(prior, groups, count, 0), drawn_coalitions(groups, count, 0)):
        scores = (2 * rows.double() - 1) @ torch.linspace(0, 1, groups).double()
        left.append(shapley_posterior(rows, scores / 2, groups / 2, prior).errors.square().sum())
    assert left[0] < 0.9 * left[1]


def test_exact_values_are_those_of_the_definition(tmp_path: Path) -> None:
    assert exact(stored(tmp_path, Pairs())).values == pytest.approx([3.5, -0.5, *EFFECTS[2:]])


def test_few_superpixels_can_be_enumerated() -> None:
    one = scene_case(HELD_OUT_SEED, 0, SceneSettings(size=(32, 32)), PREPROCESS)
    assert 6 <= len(few_superpixels(one)) <= MOST_GROUPS


def test_the_lead_is_that_before_the_best_of_the_others() -> None:
    ranks = {"a": [0.1, 0.2], "b": [0.3, 0.1], "Gaussian process": [0.5, 0.6], "Gaussian process, drawn": [0.9, 0.9]}
    cells = {name: {"20": {"rank": float(np.mean(own)), "ranks": own}} for name, own in ranks.items()}
    best, *ahead = lead(cells, "Gaussian process", "20") or ("", 0.0, 0.0)
    assert best == "b"
    assert ahead == pytest.approx([0.35, 0.15])  # of .2 and .5
    assert lead(cells, "Gaussian process", "50") is None
