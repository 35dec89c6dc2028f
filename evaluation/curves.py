"""Insertion and deletion curves by segment, and the areas under them.

Source: Petsiuk, Das, Saenko, "RISE", arXiv 1806.07421, with groups in place of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.coalition_game import CoalitionGame
from evaluation.shapley import joining


@dataclass(frozen=True)
class Areas:
    """Areas under the curve of the target's score while groups change, best first; mean heights of the curves.

    Attributes:
        logit: Area under the curve of the pre-softmax score.
        probability: Area under that of the softmax probability, 0 … 1.
    """

    logit: float
    probability: float


def insertion(game: CoalitionGame, scores: Tensor, area: Tensor) -> Areas:
    """Areas under the curve from baseline to image, groups inserted from the highest score down. Higher is better."""
    order = _order(scores)
    return _areas(game, joining(order), order, area)


def deletion(game: CoalitionGame, scores: Tensor, area: Tensor) -> Areas:
    """Areas under the curve from image to baseline, groups deleted from the highest score down. Lower is better."""
    order = _order(scores)
    return _areas(game, ~joining(order), order, area)


def flipping(game: CoalitionGame, scores: Tensor, area: Tensor) -> Areas:
    """Areas between the curves of deletion from the lowest score up and from the highest down. Higher is better.

    What deletion from the lowest up leaves are the highest, so that its curve is that of :func:`insertion` backwards,
    of the same area: pixel flipping in both orders (Samek et al., arXiv 1509.06321) takes no further evaluations.
    """
    lowest, highest = insertion(game, scores, area), deletion(game, scores, area)
    return Areas(lowest.logit - highest.logit, lowest.probability - highest.probability)


def _order(scores: Tensor) -> Tensor:
    """The order of the groups, highest score first; of equal scores the first group comes first."""
    return scores.argsort(descending=True, stable=True)


def _areas(game: CoalitionGame, coalitions: Tensor, order: Tensor, area: Tensor) -> Areas:
    """The areas by the trapezoid rule over the part of pixels changed (so a large group costs what it covers)."""
    changed = torch.cat([torch.zeros(1, dtype=torch.float64), area[order].double().cumsum(0) / area.sum()])
    logit, probability = torch.trapezoid(game.play(coalitions), changed.unsqueeze(1), dim=0).tolist()
    return Areas(logit, probability)
