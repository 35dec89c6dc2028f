"""SaCo on models whose answers are known."""

import pytest
import torch
from torch import Tensor

from evaluation.coalition_game import CoalitionGame
from evaluation.saco import coefficient, rank_groups, saco
from imagexplain.errors import ArgumentError

WEIGHTS = torch.tensor([[4.0, 1.0, -2.0], [0.5, 3.0, -1.0]])


def linear(x: Tensor) -> Tensor:
    """Score of class 0 linear in the pixels, of class 1 zero: the probability rises with the score."""
    score = 0.1 * (x[:, 0] * WEIGHTS).sum((1, 2))
    return torch.stack([score, torch.zeros_like(score)], 1)


def of(values: Tensor, count: int) -> float:
    groups = rank_groups(values, count)
    return saco(CoalitionGame(linear, torch.ones(1, 2, 3), torch.zeros(1, 2, 3), groups, 0), values, groups)


def test_groups_by_rank() -> None:
    assert rank_groups(WEIGHTS, 3).tolist() == [[0, 1, 2], [1, 0, 2]]
    assert rank_groups(torch.zeros(2, 2), 2).tolist() == [[0, 0], [1, 1]], "of equal values the first comes first"
    assert torch.bincount(rank_groups(torch.rand(7, 9), 10).flatten()).tolist() == [7, 6, 6, 7, 6, 6, 7, 6, 6, 6]
    with pytest.raises(ArgumentError, match="count: wanted 1 to 6 groups, got 7"):
        rank_groups(WEIGHTS, 7)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_exact_attributions_of_a_linear_model(count: int) -> None:
    """Each group costs the sum of its pixels' weights, which is its salience; reversed, every pair is wrong."""
    assert of(WEIGHTS, count) == pytest.approx(1)
    assert of(-WEIGHTS, count) == pytest.approx(-1)


def test_the_coefficient_by_hand() -> None:
    """s = 5, 3, 0 and d = 1, 2, 0: the first pair is wrong and weighs 2, the others are right and weigh 5 and 3."""
    assert coefficient(torch.tensor([5.0, 3.0, 0.0]), torch.tensor([1.0, 2.0, 0.0])) == pytest.approx(6 / 10)
    assert coefficient(torch.tensor([3.0, 0.0, 5.0]), torch.tensor([2.0, 0.0, 1.0])) == pytest.approx(6 / 10)


def test_equal_drops_agree_and_equal_saliences_say_nothing() -> None:
    assert coefficient(torch.tensor([2.0, 1.0]), torch.zeros(2)) == 1
    assert coefficient(torch.ones(3), torch.tensor([1.0, 2.0, 3.0])) == 0
    assert of(torch.ones(2, 3), 3) == 0
