"""Comparison of models on the same images: intervals by the bootstrap, errors fixed and made, and shares of the score.

All models are resampled alike: the seed and the number of images alone decide which images a draw takes, so that the
difference of two models is that of the same images (the paired bootstrap of Efron and Tibshirani 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]

CONFIDENCE = 0.95
"""Probability that an interval is meant for."""

DRAWS = 2000
"""Number of resamples of the images."""


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its interval.

    Attributes:
        value: Mean.
        low: Lower end of the interval.
        high: Upper end.
        images: Number of images.
    """

    value: float
    low: float
    high: float
    images: int


def bootstrap_mean(values: Vector, seed: int = 0, draws: int = DRAWS) -> Estimate | None:
    """The mean of one value for each image with its percentile interval; None where there is no image.

    Args:
        values: Values (N,), such as 1 for a right answer and 0 for a wrong one, or differences of two models.
        seed: Seed of the resamples.
        draws: Number of resamples.

    Example:
        >>> import numpy as np
        >>> from debugging.comparison import bootstrap_mean
        >>> bootstrap_mean(np.array([0.5, 0.5, 0.5]))
        Estimate(value=0.5, low=0.5, high=0.5, images=3)
    """
    count = len(values)
    if count == 0:
        return None
    random = np.random.default_rng(seed)
    means = [values[random.integers(0, count, count)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high), count)


def paired_difference(after: Vector, before: Vector, seed: int = 0, draws: int = DRAWS) -> Estimate | None:
    """The mean of after − before over the images that both have a value for, with its paired interval.

    Args:
        after: Values (N,) of one model, NaN where an image has none.
        before: Values (N,) of another model of the same images.
        seed: Seed of the resamples.
        draws: Number of resamples.
    """
    differences = after.astype(np.float64) - before.astype(np.float64)
    return bootstrap_mean(differences[np.isfinite(differences)], seed, draws)


@dataclass(frozen=True)
class Changes:
    """Images whose answer another model changed from wrong to right or back, each the largest change first.

    Attributes:
        fixed: Indices of images that were wrong and are right.
        made: Indices of images that were right and are wrong.
    """

    fixed: tuple[int, ...]
    made: tuple[int, ...]


def changes(before: Flags, after: Flags, before_truth: Vector, after_truth: Vector) -> Changes:
    """The errors that a model fixed and that it made.

    Args:
        before: Right answers (N,) of the model before.
        after: Right answers (N,) of the model after.
        before_truth: Probability (N,) of the true class before.
        after_truth: Probability (N,) of the true class after; images whose one changed more come first.
    """
    gained = after_truth - before_truth
    return Changes(_first(~before & after, gained), _first(before & ~after, -gained))


def positive_shares(values: Sequence[float]) -> list[float] | None:
    """Part of the positive sum that each value carries, negative ones none; None where nothing is positive.

    Example:
        >>> from debugging.comparison import positive_shares
        >>> positive_shares([3.0, -2.0, 1.0])
        [0.75, 0.0, 0.25]
    """
    positive = [max(value, 0.0) for value in values]
    total = sum(positive)
    return [value / total for value in positive] if total > 0 else None


def _first(chosen: Flags, by: Vector) -> tuple[int, ...]:
    """Indices of chosen images, those of the highest values first, equal ones in their order."""
    indices = np.flatnonzero(chosen)
    return tuple(int(index) for index in indices[np.argsort(-by[indices], kind="stable")])
