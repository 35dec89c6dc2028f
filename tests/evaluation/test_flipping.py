"""Pixel flipping in both orders, on a model whose curves are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evaluation.coalition_game import CoalitionGame
from evaluation.curves import deletion, flipping

PIXELS = torch.tensor([[[4.0, 1.0, 2.0]]])
AREA = torch.ones(3)


def total(x: Tensor) -> Tensor:
    """Score of class 0 the sum of the pixels, of class 1 zero."""
    score = x.flatten(1).sum(1)
    return torch.stack([score, torch.zeros_like(score)], 1)


def test_by_hand() -> None:
    """From 7, in order 4, 2, 1: 7, 3, 1, 0; from the lowest up: 7, 6, 4, 0; by trapezoids of a third."""
    game = CoalitionGame(total, PIXELS, torch.zeros_like(PIXELS), torch.tensor([[0, 1, 2]]), 0)
    scores = PIXELS.flatten()
    assert deletion(game, scores, AREA).logit == pytest.approx((7 / 2 + 3 + 1) / 3)
    assert flipping(game, scores, AREA).logit == pytest.approx((7 / 2 + 6 + 4) / 3 - (7 / 2 + 3 + 1) / 3)
    assert flipping(game, -scores, AREA).logit == pytest.approx(-flipping(game, scores, AREA).logit)
    evaluated = game.evaluations
    flipping(game, scores, AREA)
    assert game.evaluations == evaluated
