"""Predictions and path attributions of a batch by one served model, and the results that answers are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from imagexplain.api.request import GZIP, PER_STEP, SAFETENSORS, Request
from imagexplain.archive.spec import ModelSpec
from imagexplain.attribution.differences import Target, contrast
from imagexplain.attribution.groups.directional import GroupScores, directional, group_norms, group_scores
from imagexplain.attribution.groups.families import parents
from imagexplain.attribution.paths.adaptive import AdaptiveIntegral, OutOfTimeError, integrate_adaptive
from imagexplain.attribution.paths.path_integral import Forward, PathIntegral, integrate, points_on, relative_to
from imagexplain.attribution.paths.quadrature import Quadrature, quadrature
from imagexplain.errors import RequestError
from imagexplain.models.head import Head
from imagexplain.serving.admission import nodes_that_fit
from imagexplain.serving.cache import digest
from imagexplain.serving.out_of_memory import halving_chunks
from imagexplain.serving.prepared_request import Groups, PreparedRequest

Item = TypeVar("Item")

TOP = 5
"""Number of the best classes that a summary lists."""

MIN_PATH_POINTS = 16
"""Path points for which a refinement must find time; it takes more of them while there is time."""


class Model(Protocol):
    """A model that is explained.

    Attributes:
        spec: Spec with the name and labels.
        head: Meaning of the scores.
        network: Function from (N, 3, H, W) to the scores that are explained (N, classes).
        device: Device of the network.
        chunk: Number of path points evaluated at once.
    """

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def head(self) -> Head: ...
    @property
    def network(self) -> Forward: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def chunk(self) -> int: ...


@dataclass(frozen=True)
class PathAttribution:
    """The path integrals of one request.

    Attributes:
        integrals: Path integral of each draw of the baseline.
        converged: Flag for a tolerance that was met; None if none was asked for.
        stability: Largest relative change of a group's attribution at the last refinement; None likewise.
    """

    integrals: tuple[PathIntegral, ...]
    converged: bool | None = None
    stability: float | None = None

    @property
    def attribution(self) -> Tensor:
        """(C, H, W) integrated gradients, averaged over the draws."""
        return torch.stack([integral.attribution for integral in self.integrals]).mean(0)

    @property
    def score(self) -> float:
        """f(input)."""
        return self.integrals[0].score

    @property
    def baseline_score(self) -> float:
        """f(baseline), averaged over the draws."""
        return _mean([integral.baseline_score for integral in self.integrals])

    @property
    def residual(self) -> float:
        """f(input) − f(baseline) − Σ IG, averaged over the draws."""
        return _mean([integral.residual for integral in self.integrals])

    @property
    def evaluations(self) -> int:
        """Path points at which the gradient was taken."""
        return sum(integral.evaluations for integral in self.integrals)

    def relative_residual(self, groups: Groups | None) -> float:
        """|residual| relative to the score difference or the disjoint parts of the groups, whichever is more."""
        total = self.attribution
        shares = total.sum().reshape(1) if groups is None else groups.family.parts.sums(total)
        return abs(self.residual) / relative_to(self.score - self.baseline_score, shares)


def predict(model: Model, images: Sequence[Tensor]) -> Tensor:
    """(B, classes) scores on the CPU, of images (3, H, W)."""
    inputs = torch.stack(list(images)).to(model.device)
    with torch.no_grad():
        return halving_chunks(
            lambda chunk: torch.cat([model.network(rows) for rows in inputs.split(chunk)]).cpu(), model.chunk
        )


def integrate_paths(
    model: Model,
    samples: Sequence[PreparedRequest],
    targets: Sequence[Target],
    before_chunk: Callable[[int], None] | None = None,
) -> list[PathAttribution]:
    """The path integrals of each request's target, a score or a difference of two: those of a fixed quadrature all in
    one pass."""
    fixed = [index for index, sample in enumerate(samples) if sample.request.path.tolerance is None]
    refined = [index for index, sample in enumerate(samples) if sample.request.path.tolerance is not None]
    found: dict[int, PathAttribution] = {}
    for indices, work in ((fixed, _integrate), (refined, _refine)):
        if indices:
            chosen, asked = [samples[index] for index in indices], [targets[index] for index in indices]
            with contrasted(model.network, asked) as (forward, columns):
                done = halving_chunks(partial(work, model, forward, chosen, columns, before_chunk), model.chunk)
            found.update(zip(indices, done, strict=True))
    return [found[index] for index in range(len(samples))]


@contextmanager
def contrasted(network: Forward, targets: Sequence[Target]) -> Iterator[tuple[Forward, list[int]]]:
    """The network with columns of scores that are the targets, and their indices; as it is where each is a class."""
    classes = [target for target in targets if isinstance(target, int)]
    if len(classes) == len(targets):
        yield network, classes
        return
    with contrast(network, targets) as (forward, columns):
        yield forward, columns.tolist()


def _integrate(
    model: Model,
    forward: Forward,
    samples: Sequence[PreparedRequest],
    targets: Sequence[int],
    before_chunk: Callable[[int], None] | None,
    chunk: int,
) -> list[PathAttribution]:
    inputs, starts, classes, draws = _paths(model, samples, targets)
    per_path = [sample for sample, count in zip(samples, draws, strict=True) for _ in range(count)]
    integrals = integrate(
        forward,
        inputs,
        starts,
        classes,
        [quadrature_of(sample.request) for sample in per_path],
        chunk=chunk,
        keep_steps=[wants_steps(sample.request) for sample in per_path],
        groups=[_absolute_masks(sample, model) for sample in per_path],
        before_chunk=before_chunk,
    )
    return [PathAttribution(tuple(own)) for own in _split(integrals, draws)]


def _refine(
    model: Model,
    forward: Forward,
    samples: Sequence[PreparedRequest],
    targets: Sequence[int],
    before_chunk: Callable[[int], None] | None,
    chunk: int,
) -> list[PathAttribution]:
    inputs, starts, classes, draws = _paths(model, samples, targets)
    per_path = [sample for sample, count in zip(samples, draws, strict=True) for _ in range(count)]

    def most(sample: PreparedRequest) -> int:
        fitting = nodes_that_fit(sample, len(model.spec.labels), model.spec.limits.max_response_bytes)
        return min(sample.request.path.steps, fitting)

    def within_time(remaining: int) -> None:
        try:
            if before_chunk is not None:
                before_chunk(remaining)
        except RequestError as refusal:
            raise OutOfTimeError from refusal

    try:
        refined: list[AdaptiveIntegral] = integrate_adaptive(
            forward,
            inputs,
            starts,
            classes,
            [None if sample.groups is None else sample.groups.family.masks for sample in per_path],
            torch.tensor([sample.request.path.tolerance for sample in per_path], dtype=torch.float64),
            chunk=chunk,
            most=[nodes for nodes, count in zip(map(most, samples), draws, strict=True) for _ in range(count)],
            keep_steps=[wants_steps(sample.request) for sample in per_path],
            before_chunk=within_time,
        )
    except OutOfTimeError as error:  # before there was anything to answer with
        raise (error.__cause__ or error) from None
    return [
        PathAttribution(
            tuple(one.integral for one in own), all(one.converged for one in own), max(one.stability for one in own)
        )
        for own in _split(refined, draws)
    ]


def _paths(
    model: Model, samples: Sequence[PreparedRequest], targets: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Inputs, baselines and targets of all paths, and the number of paths of each request."""
    draws = [len(sample.baselines) for sample in samples]
    counts = torch.tensor(draws)
    inputs = torch.stack([sample.image for sample in samples]).repeat_interleave(counts, 0)
    classes = torch.tensor(targets).repeat_interleave(counts)
    starts = torch.cat([sample.baselines for sample in samples])
    return inputs.to(model.device), starts.to(model.device), classes.to(model.device), draws


def _split(items: Sequence[Item], counts: Sequence[int]) -> list[list[Item]]:
    iterator = iter(items)
    return [[next(iterator) for _ in range(count)] for count in counts]


def path_points(sample: PreparedRequest) -> int:
    """Number of path points that a request's explanation evaluates, ends included; with a tolerance, a lower bound."""
    path, draws = sample.request.path, len(sample.baselines)
    if path.tolerance is not None:
        return draws * min(path.steps, MIN_PATH_POINTS)
    return draws * points_on(quadrature_of(sample.request))


def path_key(sample: PreparedRequest, target: Target) -> tuple[object, ...]:
    """The cache key of a request's path integrals; masks are part of it only where they decide what is computed."""
    request = sample.request
    masks = None
    if sample.groups is not None and (request.path.tolerance is not None or _wants_absolute(request)):
        masks = digest(sample.groups.family.masks)
    return (
        sample.key,
        digest(sample.baselines),
        target,
        request.path,
        wants_steps(request),
        _wants_absolute(request),
        masks,
    )


def is_cacheable(explanation: PathAttribution) -> bool:
    """Tell whether a request would get the same answer again: not where time ran out, for a next try may have more."""
    return explanation.converged is not False


def quadrature_of(request: Request) -> Quadrature:
    """The quadrature of a request without a tolerance."""
    return quadrature(request.path.quadrature, request.path.steps)


def wants_steps(request: Request) -> bool:
    """Tell whether the answer holds a tensor with one entry for each step."""
    return request.accept in (GZIP, SAFETENSORS) and not set(PER_STEP).isdisjoint(request.outputs)


def _wants_absolute(request: Request) -> bool:
    return "absolute_directional" in request.outputs


def _absolute_masks(sample: PreparedRequest, model: Model) -> Tensor | None:
    if sample.groups is None or not _wants_absolute(sample.request):
        return None
    return sample.groups.family.masks.to(model.device)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def prediction_result(model: Model, scores: Tensor) -> dict[str, Any]:
    """The entries of an answer of ``/predictions``, from one row of scores (classes,)."""
    kind, ranked = model.head.score_kind, ranking(model, scores)
    return {"model": model.spec.address, "score_kind": kind, "predictions": ranked, "output": scores.unsqueeze(0)}


def explanation_result(
    model: Model, sample: PreparedRequest, target: Target, scores: Tensor, explanation: PathAttribution
) -> dict[str, Any]:
    """All entries that a path's answer may have; :func:`imagexplain.api.response.select` picks from them."""
    request, path = sample.request, sample.request.path
    attribution = explanation.attribution
    result: dict[str, Any] = {
        "integrated_grads": attribution.unsqueeze(0),
        **target_result(model, scores, target),
        "score": explanation.score,
        "baseline_score": explanation.baseline_score,
        "residual": explanation.residual,
        "relative_residual": explanation.relative_residual(sample.groups),
        "finite": bool(attribution.isfinite().all()),
        "method": request.plan.name,
        "baseline": request.baseline.name,
        "evaluations": explanation.evaluations,
        "model": model.spec.address,
        "top": ranking(model, scores),
    }
    if path.tolerance is None:
        result |= {"quadrature": path.quadrature, "steps": path.steps}
    else:
        result |= {"tolerance": path.tolerance, "steps": explanation.evaluations}
        result |= {"converged": explanation.converged, "stability": explanation.stability}
    if len(explanation.integrals) > 1:
        result["draws"] = len(explanation.integrals)
    if (steps := explanation.integrals[0].steps) is not None:
        result["integrated_directional_grads"] = steps.gradients
        result["step_sizes"] = steps.weights.unsqueeze(1)
        result["intermediates"] = steps.points
    if request.segments is not None:
        result["segments"] = request.segments.name
    if sample.groups is not None:
        result |= group_result(explanation, sample.groups)
    return result


def scores_of(explanation: PathAttribution, groups: Groups) -> GroupScores:
    """The scores of a request's groups."""
    attribution = torch.stack([integral.attribution for integral in explanation.integrals])
    difference = torch.stack([integral.difference for integral in explanation.integrals])
    return group_scores(attribution, difference, groups.family)


def group_result(explanation: PathAttribution, groups: Groups) -> dict[str, Any]:
    """An answer's entries about groups: tensors (G,) by name, the same as a table of rows, and the disjoint parts."""
    family, scores = groups.family, scores_of(explanation, groups)
    columns = score_columns(scores, groups)
    if len(explanation.integrals) > 1:
        columns["attribution_spread"] = scores.attribution_spread
        columns["directional_spread"] = scores.directional_spread
    absolute = [integral.absolute.cpu().double() for integral in explanation.integrals if integral.absolute is not None]
    if absolute:
        norms = [group_norms(integral.difference, family) for integral in explanation.integrals]
        columns["absolute_directional"] = directional(torch.stack(absolute), torch.stack(norms)).mean(0)
    segments = [index for index, kind in enumerate(family.kinds) if kind != "whole"]
    largest = max(segments, key=lambda index: abs(scores.attribution[index].item()), default=None)
    listed = [index for index, kind in enumerate(family.kinds) if kind == "segment"]
    parts = family.parts
    result: dict[str, Any] = {
        **group_table(columns, groups),
        "largest": None if largest is None else family.labels[largest],
        "refinement": [
            {"segments": [family.labels[index] for index in listed if row[index]], "attribution": share, "area": area}
            for row, share, area in zip(
                parts.members.tolist(),
                parts.sums(explanation.attribution).tolist(),
                parts.area.tolist(),
                strict=True,
            )
        ],
    }
    if scores.pixel_dividend is not None:
        result["pixel_dividend"] = scores.pixel_dividend
    return result


def score_columns(scores: GroupScores, groups: Groups) -> dict[str, Tensor]:
    """Columns (G,) of the table of groups, by name."""
    return {
        "attribution": scores.attribution,
        "directional": scores.directional,
        "dividend": scores.dividend,
        "value": scores.value,
        "area": scores.area,
        "norm": scores.norm,
        "parent": parents(groups.family),
    }


def group_table(columns: dict[str, Tensor], groups: Groups) -> dict[str, Any]:
    """Columns (G,) by name, the same as a table of rows, and what became of the groups that were asked for."""
    family = groups.family
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {
        **columns,
        "group_masks": family.masks,
        "labels": list(family.labels),
        "groups": [
            {"label": label, "kind": kind, **dict(zip(columns, row, strict=True))}
            for label, kind, row in zip(family.labels, family.kinds, rows, strict=True)
        ],
        "dropped": list(family.dropped),
        "merged": [list(pair) for pair in family.merged],
        "cropped": groups.cropped,
        "rescued": list(groups.rescued),
    }


def target_result(model: Model, scores: Tensor, target: Target) -> dict[str, Any]:
    """The entries of an explanation about the scores (classes,) and the class, or the two, that it explains."""
    labels, (index, *other) = model.spec.labels, (target,) if isinstance(target, int) else target
    result = {"output": scores.unsqueeze(0), "target_class": index, "target_label": labels[index]}
    if other:
        result |= {"contrast_class": other[0], "contrast_label": labels[other[0]]}
    return result | {"score_kind": model.head.score_kind}


def ranking(model: Model, scores: Tensor) -> list[dict[str, Any]]:
    """The best classes of one row of scores (classes,), best first; or all values, in order."""
    if model.head.probabilities(scores) is None:
        return scored(model, scores, range(len(scores)))
    return scored(model, scores, scores.topk(min(TOP, len(scores))).indices.tolist())


def scored(model: Model, scores: Tensor, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Classes of one row of scores (classes,), with their probabilities; values have none."""
    probabilities, labels = model.head.probabilities(scores), model.spec.labels
    rows = [{"label": labels[index], "index": index, "score": scores[index].item()} for index in indices]
    if probabilities is None:
        return rows
    return [row | {"probability": probabilities[index].item()} for row, index in zip(rows, indices, strict=True)]
