"""The choice of pool images for each class, from what is on record of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from debugging.concept_files import KeptConcepts, feature_of
from debugging.selection import Vector, active_scores, best, random_scores, similarity_scores

FILL = "fill"
"""Strategy of the rows that fill a class up."""

COLUMNS = ("class", "rank", "image", "strategy", "score", "entropy", "distance", "loss", "concept")
"""Columns of the table of chosen images."""

Row = dict[str, Any]
Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ChoiceSettings:
    """Settings of a choice.

    Attributes:
        strategy: One of :data:`debugging.selection.STRATEGIES`.
        count: Number of images of each class.
        seed: Seed of random choices.
        fill: Flag that fills a class up with random images where the strategy has too few.
    """

    strategy: str
    count: int
    seed: int = 0
    fill: bool = False


@dataclass(frozen=True, eq=False)
class ClassPool:
    """The pool images of one class, with what is known of them.

    Attributes:
        name: Name of the class.
        images: Names (N,) of the images.
        scored: Records of their scores and features, by image.
        drivers: Records of their driving segments, by image; needed by ``concept`` alone.
        error_mean: Mean feature (K,) of the class's errors; None where it has none.
    """

    name: str
    images: Sequence[str]
    scored: Records
    drivers: Records
    error_mean: Vector | None

    def column(self, name: str) -> Vector:
        """A number (N,), or a feature (N, K), of each image."""
        return np.array([self.scored[image][name] for image in self.images], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Scores by which the images of a class are chosen.

    Attributes:
        scores: Scores (N,), NaN for an image that is not to be chosen.
        columns: Further columns (N,) of the table.
        concepts: Names (N,) of the concepts that the images' driving segments fall into, empty for none.
    """

    scores: Vector
    columns: Mapping[str, Vector] = field(default_factory=dict)
    concepts: Sequence[str] = ()


def choose(pool: ClassPool, settings: ChoiceSettings, concepts: KeptConcepts | None = None) -> list[Row]:
    """The rows of the images that a strategy chooses for one class, best first.

    Args:
        pool: Images of the class.
        settings: Settings of the choice.
        concepts: Kept concepts, for the strategy ``concept``.
    """
    ranking = rank(pool, settings, concepts)
    chosen = [(int(index), settings.strategy) for index in best(ranking.scores, settings.count)]
    if settings.fill:
        others = random_scores(len(pool.images), settings.seed, pool.name)
        others[[index for index, _ in chosen]] = np.nan
        chosen += [(int(index), FILL) for index in best(others, settings.count - len(chosen))]
    return [
        {
            "class": pool.name,
            "rank": number,
            "image": pool.images[index],
            "strategy": strategy,
            "score": float(ranking.scores[index]) if np.isfinite(ranking.scores[index]) else "",
            "concept": ranking.concepts[index] if ranking.concepts else "",
        }
        | {name: float(values[index]) for name, values in ranking.columns.items()}
        for number, (index, strategy) in enumerate(chosen, 1)
    ]


def rank(pool: ClassPool, settings: ChoiceSettings, concepts: KeptConcepts | None) -> Ranking:
    """The scores of a class's images by a strategy; arguments as for :func:`choose`."""
    if settings.strategy == "random":
        return Ranking(random_scores(len(pool.images), settings.seed, pool.name))
    if settings.strategy == "loss":
        losses = pool.column("loss")
        return Ranking(losses, {"loss": losses})
    if settings.strategy == "concept":
        assert concepts is not None
        return _by_concept(pool, concepts)
    if pool.error_mean is None:  # a class without errors is like none
        return Ranking(np.full(len(pool.images), np.nan))
    if settings.strategy == "similarity":
        scores = similarity_scores(pool.column("feature"), pool.error_mean)
        return Ranking(scores, {"distance": -scores})
    found = active_scores(pool.column("entropy"), pool.column("feature"), pool.error_mean)
    return Ranking(found.score, {"entropy": found.entropy, "distance": found.distance})


def _by_concept(pool: ClassPool, concepts: KeptConcepts) -> Ranking:
    scores, names = np.full(len(pool.images), np.nan), []
    for index, image in enumerate(pool.images):
        driven = pool.drivers[image]
        concept = concepts.concept_of(pool.name, driven["label"], feature_of(driven["feature"]))
        names.append("" if concept is None else concept.name)
        if concept is not None:
            scores[index] = driven["margin_drop"]
    return Ranking(scores, {}, names)
