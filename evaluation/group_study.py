"""The study of group scores: every metric of every method, for each partition of each case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation import metrics
from evaluation.cases import Case
from evaluation.coalition_game import CoalitionGame, leave_one_out
from evaluation.controls import edges, gradients
from evaluation.curves import deletion, insertion
from evaluation.evaluated_model import EvaluatedModel
from evaluation.faithfulness import infidelity, removals, sensitivity
from evaluation.harness import Part, Result, Row, Study
from evaluation.methods import UNITS_OF_THE_SCORE, controls, ours, pixel_maps
from evaluation.metrics import Metric
from evaluation.partition import Partition
from evaluation.pointing import pointing_game, relevance_mass_accuracy
from evaluation.ranks import spearman
from evaluation.settings import Settings
from evaluation.shapley import exact
from imagexplain.attribution.paths.quadrature import quadrature


@dataclass(frozen=True, eq=False)
class GroupStudy(Study):
    """Group scores of a model and, where pixels have scores too, their maps.

    Attributes:
        randomized: The model with randomized parameters.
        noisy: Number of cases, from the first, on which max-sensitivity is measured.
    """

    randomized: EvaluatedModel
    noisy: int

    def score(self, part: Part) -> Result:
        """Every metric of every method on one case."""
        return Result(
            {
                Row(scored, method, metric.name): value
                for scored, method, metric, value in _values(
                    self.model,
                    self.randomized,
                    self.cases[part.case],
                    self.settings,
                    noisy=part.case < self.noisy,
                )
            }
        )


def _values(
    model: EvaluatedModel, randomized: EvaluatedModel, case: Case, settings: Settings, *, noisy: bool
) -> Iterator[tuple[str, str, Metric, float]]:
    start = model.start()
    (integral,) = model.explain(case.image[None], start[None], case.label)
    repeat = quadrature("midpoint", settings.repeat_steps)
    (again,) = model.explain(case.image[None], start[None], case.label, repeat)
    (other,) = randomized.explain(case.image[None], start[None], case.label)
    maps = pixel_maps(model, case.image, case.photo, integral, case.label, case.generator(1))
    other_maps = pixel_maps(randomized, case.image, case.photo, other, case.label, case.generator(2))
    for method, values in maps.items():
        pixels, deciding = values.flatten(), case.deciding.flatten()
        yield "pixels", method, metrics.POINTING_GAME, pointing_game(pixels, deciding.double())
        yield "pixels", method, metrics.RELEVANCE_MASS, relevance_mass_accuracy(pixels, deciding)

    for name, groups in case.partitions.items():
        game = CoalitionGame(model.network, case.image, start, groups.segments, case.label)
        effects = leave_one_out(game)
        taken = removals(len(groups), settings.removals, case.generator(3))
        shapley = exact(game) if name == "objects" else None
        tables = {
            **ours(integral.attribution, integral.difference, groups),
            **controls(maps, groups, case.generator(4)),
            "leave-one-out": effects,
            "truth": groups.inside,
        }
        for method, scores in tables.items():
            for metric, value in _group_metrics(game, scores, groups, taken, method):
                yield name, method, metric, value
            if method != "leave-one-out":
                yield name, method, metrics.RANK_CORRELATION, spearman(scores, effects)
            if shapley is not None:
                yield name, method, metrics.SHAPLEY_RANK_CORRELATION, spearman(scores, shapley)
        second = {
            **ours(other.attribution, other.difference, groups),
            **controls(other_maps, groups, case.generator(5)),
        }
        for method, scores in second.items():
            yield name, method, metrics.SIGNED_RANDOMIZATION, spearman(scores, tables[method])
        for method, scores in ours(again.attribution, again.difference, groups).items():
            yield name, method, metrics.FINER_PATH, spearman(scores, tables[method])
    if noisy:
        groups = case.partitions["superpixels"]
        for method, value in _sensitivities(model, case, groups, settings).items():
            yield "superpixels", method, metrics.MAX_SENSITIVITY, value


def _group_metrics(
    game: CoalitionGame, scores: Tensor, groups: Partition, taken: Tensor, method: str
) -> Iterator[tuple[Metric, float]]:
    yield metrics.POINTING_GAME, pointing_game(scores, groups.inside)
    if 1 < int(groups.objects.sum()) < len(groups):  # a single object is hit by anything
        yield metrics.POINTING_GAME_AMONG_OBJECTS, pointing_game(scores, groups.inside, groups.objects)
    yield metrics.RELEVANCE_MASS, relevance_mass_accuracy(scores, groups.inside)
    come, gone = insertion(game, scores, groups.area), deletion(game, scores, groups.area)
    yield metrics.INSERTION_LOGIT, come.logit
    yield metrics.INSERTION, come.probability
    yield metrics.DELETION_LOGIT, gone.logit
    yield metrics.DELETION, gone.probability
    if method in UNITS_OF_THE_SCORE:
        yield metrics.INFIDELITY, infidelity(game, scores, taken, scaled=False)
    yield metrics.NORMALIZED_INFIDELITY, infidelity(game, scores, taken, scaled=True)


def _sensitivities(model: EvaluatedModel, case: Case, groups: Partition, settings: Settings) -> dict[str, float]:
    """Max-sensitivity of each method but chance, which has no input. Each image is explained once for all methods."""
    start = model.start()
    known: dict[bytes, Mapping[str, Tensor]] = {}

    def tables(images: Tensor) -> Mapping[str, Tensor]:
        key = images.numpy().tobytes()
        if key not in known:
            known[key] = _tables(images)
        return known[key]

    def _tables(images: Tensor) -> Mapping[str, Tensor]:
        photos = model.photos(images)
        local = gradients(model.network, images, case.label)
        rows = []
        for row, integral in enumerate(model.explain(images, start.expand_as(images), case.label)):
            maps = {"edges": edges(photos[row]), **{name: values[row] for name, values in local.items()}}
            theirs = controls(maps, groups, torch.Generator().manual_seed(0))
            rows.append({**ours(integral.attribution, integral.difference, groups), **theirs})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "random"}

    def one(method: str) -> float:
        return sensitivity(
            lambda images: tables(images)[method], case.image, settings.radius, settings.noisy, case.index
        )

    return {method: one(method) for method in tables(case.image[None])}
