"""Scores all methods on all cases: one value for every case, group partition, method and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from evaluation.cases import Case
from evaluation.curves import deletion, insertion
from evaluation.faithfulness import infidelity, removals, sensitivity
from evaluation.game import Game, leave_one_out
from evaluation.methods import UNITS_OF_THE_SCORE, ours, pixel_maps, rivals
from evaluation.partition import Partition
from evaluation.pointing import hit, mass
from evaluation.ranks import spearman
from evaluation.rivals import edges, gradients
from evaluation.settings import Settings
from evaluation.shapley import exact
from evaluation.subject import Subject
from imagexplain.attribution.paths.quadrature import quadrature

Row = tuple[str, str, str]
"""Partition, method, metric."""


DIRECTIONS: Mapping[str, str] = {
    "hit": "higher",
    "hit among objects": "higher",
    "mass": "higher",
    "rank": "higher",
    "rank by Shapley": "higher",
    "insertion logit": "higher",
    "insertion probability": "higher",
    "deletion logit": "lower",
    "deletion probability": "lower",
    "infidelity": "lower",
    "infidelity scaled": "lower",
    "sensitivity": "lower",
    "redrawn": "near 0",
    "repeated": "near 1",
}


def scores_of_case(
    subject: Subject, redrawn: Subject, case: Case, settings: Settings, *, costly: bool
) -> dict[Row, float]:
    """Every metric of every method on one case.

    Args:
        subject: the model.
        redrawn: the same with weights drawn anew.
        case: that the model classifies rightly.
        settings: of the metrics.
        costly: measure max-sensitivity as well.
    """
    start = subject.start()
    found: dict[Row, float] = {}
    (integral,) = subject.explain(case.image[None], start[None], case.label)
    repeat = quadrature("midpoint", settings.repeat_steps)
    (again,) = subject.explain(case.image[None], start[None], case.label, repeat)
    (untaught,) = redrawn.explain(case.image[None], start[None], case.label)
    maps = pixel_maps(subject, case.image, case.photo, integral, case.label, case.generator(1))
    untaught_maps = pixel_maps(redrawn, case.image, case.photo, untaught, case.label, case.generator(2))
    for method, values in maps.items():
        found["pixels", method, "hit"] = hit(values.flatten(), case.deciding.flatten().double())
        found["pixels", method, "mass"] = mass(values.flatten(), case.deciding.flatten())

    for name, groups in case.partitions.items():
        game = Game(subject.network, case.image, start, groups.segments, case.label)
        effects = leave_one_out(game)
        taken = removals(len(groups), settings.removals, case.generator(3))
        shapley = exact(game) if name == "objects" else None
        tables = {
            **ours(integral.attribution, integral.difference, groups),
            **rivals(maps, groups, case.generator(4)),
            "leave-one-out": effects,
            "truth": groups.inside,
        }
        for method, scores in tables.items():
            found |= {
                (name, method, metric): value for metric, value in _group_metrics(game, scores, groups, taken, method)
            }
            if method != "leave-one-out":
                found[name, method, "rank"] = spearman(scores, effects)
            if shapley is not None:
                found[name, method, "rank by Shapley"] = spearman(scores, shapley)
        second = {
            **ours(untaught.attribution, untaught.difference, groups),
            **rivals(untaught_maps, groups, case.generator(5)),
        }
        for method, scores in second.items():
            found[name, method, "redrawn"] = spearman(scores, tables[method])
        for method, scores in ours(again.attribution, again.difference, groups).items():
            found[name, method, "repeated"] = spearman(scores, tables[method])
    if costly:
        groups = case.partitions["superpixels"]
        found |= {
            ("superpixels", method, "sensitivity"): value
            for method, value in _sensitivities(subject, case, groups, settings).items()
        }
    return found


def _group_metrics(
    game: Game, scores: Tensor, groups: Partition, taken: Tensor, method: str
) -> Iterator[tuple[str, float]]:
    yield "hit", hit(scores, groups.inside)
    if 1 < int(groups.objects.sum()) < len(groups):  # a single object is hit by anything
        yield "hit among objects", hit(scores, groups.inside, groups.objects)
    yield "mass", mass(scores, groups.inside)
    for name, curve in (("insertion", insertion), ("deletion", deletion)):
        areas = curve(game, scores, groups.area)
        yield f"{name} logit", areas.logit
        yield f"{name} probability", areas.probability
    if method in UNITS_OF_THE_SCORE:
        yield "infidelity", infidelity(game, scores, taken, scaled=False)
    yield "infidelity scaled", infidelity(game, scores, taken, scaled=True)


def _sensitivities(subject: Subject, case: Case, groups: Partition, settings: Settings) -> dict[str, float]:
    """Max-sensitivity of each method but chance, which has no input. Each image is explained once for all methods."""
    start = subject.start()
    known: dict[bytes, Mapping[str, Tensor]] = {}

    def tables(images: Tensor) -> Mapping[str, Tensor]:
        key = images.numpy().tobytes()
        if key not in known:
            known[key] = _tables(images)
        return known[key]

    def _tables(images: Tensor) -> Mapping[str, Tensor]:
        photos = subject.photos(images)
        local = gradients(subject.network, images, case.label)
        rows = []
        for row, integral in enumerate(subject.explain(images, start.expand_as(images), case.label)):
            maps = {"edges": edges(photos[row]), **{name: values[row] for name, values in local.items()}}
            theirs = rivals(maps, groups, torch.Generator().manual_seed(0))
            rows.append({**ours(integral.attribution, integral.difference, groups), **theirs})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "random"}

    def one(method: str) -> float:
        return sensitivity(
            lambda images: tables(images)[method], case.image, settings.radius, settings.noisy, case.index
        )

    return {method: one(method) for method in tables(case.image[None])}
