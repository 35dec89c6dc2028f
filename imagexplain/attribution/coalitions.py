"""Coalitions: groups of pixels that are present together, while all others show the baseline."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import scores_of_copy
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.targets import target_scores
from imagexplain.errors import ArgumentError

MOST_MEMBERS = 20_000_000
"""Coalitions times groups of an image, at most, in methods that hold that many numbers a few times."""


def check_groups(numbers: Tensor, most: int, beside: str = "") -> None:
    """Raise ArgumentError if an image has more groups than a method takes.

    Args:
        numbers: Group numbers (B, H, W), int64, from 0 without gaps.
        most: Largest number of groups.
        beside: Words for what the bound depends on, such as " with samples=20000".
    """
    count = int(numbers.max()) + 1 if numbers.numel() else 0
    if count > most:
        raise ArgumentError("groups", f"wanted at most {most}{beside}, got {count}")


def numbered_coalitions(numbers: Tensor, groups: int) -> Tensor:
    """Coalitions (n, G), bool, by their numbers (n,), int64: a group is present where its bit is set."""
    return (numbers.unsqueeze(1) >> torch.arange(groups)) % 2 == 1


def coalition_scores(
    model: Forward,
    image: Tensor,
    absent: Tensor,
    number: Tensor,
    target: Tensor,
    coalitions: Iterable[Tensor],
    *,
    probabilities: bool = False,
) -> Tensor:
    """Scores (n,), float64 on the CPU, of an image's class when only a coalition's groups are present.

    Args:
        model: Module or function from (N, C, H, W) to scores (N, classes).
        image: Image (C, H, W).
        absent: Values (C, H, W) of absent pixels.
        number: Group numbers (H, W), int64, from 0 without gaps.
        target: Class, a scalar int64.
        coalitions: Coalitions (m, G), bool, in parts of as many as are evaluated at once.
        probabilities: Softmax of all scores in place of the class's score.
    """
    found = []
    for members in coalitions:
        if not len(members):  # as tensors without rows are split
            continue
        rows = torch.where(members.to(image.device)[:, number].unsqueeze(1), image, absent)  # (m, C, H, W)
        with torch.no_grad():
            scores = scores_of_copy(model, rows)
        own = target_scores(scores.softmax(1) if probabilities else scores, target.expand(len(rows)))
        found.append(own.double().cpu())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
