"""Means over scenes, with the uncertainty that a bootstrap gives them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

RESAMPLES = 2000

R = TypeVar("R", bound=Hashable)


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % interval.

    Attributes:
        mean: Mean over the scenes.
        low: Bound below which 2.5 % of the means of resampled scenes lie.
        high: Bound above which 2.5 % lie.
        scenes: Number of scenes that have a value.
    """

    mean: float
    low: float
    high: float
    scenes: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def mean(values: Sequence[float], seed: int = 0) -> Mean:
    """The mean of one value per scene, with the percentile bootstrap's interval.

    Raises:
        ValueError: no values.

    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if not len(values):
        raise ValueError("values: wanted at least one, got none")
    given = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(given), size=(RESAMPLES, len(given)))
    low, high = np.quantile(given[picks].mean(1), [0.025, 0.975])
    return Mean(float(given.mean()), float(low), float(high), len(given))


def means(cases: Sequence[Mapping[R, float]]) -> dict[R, Mean]:
    """Each row's mean over the cases that have it, rows in the order in which they appear."""
    rows = dict.fromkeys(row for case in cases for row in case)
    return {row: mean([case[row] for case in cases if row in case]) for row in rows}


def difference(cases: Sequence[Mapping[R, float]], first: R, second: R) -> Mean:
    """The mean of first − second, case by case, over the cases that have both."""
    return mean([case[first] - case[second] for case in cases if first in case and second in case])
