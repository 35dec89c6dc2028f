"""Attribution maps of prepared requests, by any plan but the path's: :mod:`imagexplain.serving.path_attribution`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imagexplain.api.method_options import CLIENTS_NAMES, starts
from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.differences import OF_ONE_SCORE, Target, score_of
from imagexplain.attribution.groups.directional import scores_of_values
from imagexplain.attribution.paths.path_integral import Forward, relative_to
from imagexplain.attribution.registry import INPUTS, METHODS
from imagexplain.attribution.runner import (
    AttributionInputs,
    evaluations,
    layer_and_channels,
    network_of,
    product,
    run,
    seconds_beside,
)
from imagexplain.attribution.targets import target_scores
from imagexplain.attribution.uncertainty import relative_uncertainty, standard_errors
from imagexplain.errors import ArgumentError, LayerError, RequestError, UnsupportedModelError
from imagexplain.serving.cache import digest
from imagexplain.serving.model_facts import ModelFacts
from imagexplain.serving.out_of_memory import halving_chunks
from imagexplain.serving.over_photo import frame, photo_masks
from imagexplain.serving.path_attribution import (
    Model,
    PathAttribution,
    contrasted,
    explanation_result,
    group_table,
    path_key,
    ranking,
    score_columns,
    target_result,
)
from imagexplain.serving.prepared_request import Groups, PreparedRequest

MIN_EVALUATIONS_FOR_TIMING = 20
"""Path points that a map must be estimated to cost for its time to measure its method; in less, other work counts."""

OPTION_OF_INPUT = {
    "layer": "layer",
    **dict.fromkeys(("baselines", "fill", "references"), "baseline"),
    **dict.fromkeys(("groups", "segments"), "segments"),
}
"""Options of requests by what a runner makes of them."""


class Inspected(Model, Protocol):
    """A model that methods may look into.

    Attributes:
        original_network: Network under its authors' names; where there is none, a function of images.
        facts: Facts known of the model; this module adds to them.
    """

    @property
    def original_network(self) -> Callable[[], Forward]: ...
    @property
    def facts(self) -> ModelFacts: ...


@dataclass(frozen=True)
class AttributionMap:
    """The attribution map of one request.

    Attributes:
        attribution: (C, H, W) or (1, H, W), on the CPU.
        score: f(input).
        evaluations: Number of the model's evaluations for it; of those made for several requests at once, its part.
        baseline_score: f(baseline), averaged over the draws; None for a method that has no baseline.
        integral: Sum of the integrated gradients that the map is made of, where it is.
        covariance: Covariance (P, P), float64, of the errors of the disjoint parts' values, of a method that estimates
            it. Of a map that is a mean over baselines or noise the mean of theirs, which is no less than its own.
    """

    attribution: Tensor
    score: float
    evaluations: int
    baseline_score: float | None = None
    integral: Tensor | None = None
    covariance: Tensor | None = None

    @property
    def integrals(self) -> dict[str, float] | None:
        """Residuals of the path integrals that the map is made of; None for a method without them."""
        if self.baseline_score is None or self.integral is None:
            return None
        difference = self.score - self.baseline_score
        residual = difference - self.integral.item()
        scale = relative_to(difference, self.integral.reshape(1))
        return {"residual": residual, "relative_residual": abs(residual) / scale}


def resolve_layer(model: Inspected, sample: PreparedRequest) -> PreparedRequest:
    """The request with its plan's layer named in full, where its methods look at one.

    Raises:
        RequestError: 400 for a layer that the model does not have, with the nearest names; 422 where there is none to
            look at.
    """
    plan = sample.request.plan
    if "layer" not in plan.takes:
        return sample
    with _told(model, sample):
        if plan.layer not in model.facts.layers:
            network = network_of(plan.name, model.original_network())
            image = sample.image[None].to(model.device)
            found = layer_and_channels(plan, network, image)
            model.facts.layers |= {plan.layer: found, found[0]: found}
    name, _ = model.facts.layers[plan.layer]
    return replace(sample, request=replace(sample.request, plan=replace(plan, layer=name)))


def resolve_score(model: Inspected, sample: PreparedRequest, target: Target) -> PreparedRequest:
    """The request with methods that would take a softmax of the scores set to the score itself, where that is no
    probability: of a head that has another activation or another score, and of a difference of two.

    Raises:
        RequestError: 422 for a request that asks for such a probability.
    """
    if model.head.competes and isinstance(target, int):
        return sample
    plan = sample.request.plan
    options = dict(plan.options)
    for name in OF_ONE_SCORE.keys() & plan.takes:
        itself = OF_ONE_SCORE[name]
        if (given := options.get(name, itself)) != itself:
            what = "a difference of two scores" if model.head.competes else f"this model's {model.head.score_kind}"
            raise RequestError(422, name, f"wanted {itself}, for a softmax is none of {what}, got {given}")
        options[name] = itself
    return replace(sample, request=replace(sample.request, plan=replace(plan, options=tuple(sorted(options.items())))))


@dataclass(frozen=True)
class Cost:
    """The estimated cost of a map.

    Attributes:
        points: Number of path points that take as long as the evaluations.
        seconds: Seconds of work beside the model.
    """

    points: int
    seconds: float


def costs(model: Inspected, sample: PreparedRequest) -> dict[str, Cost]:
    """The estimated cost of each of the plan's methods, before correction by what such maps have taken so far."""
    plan, groups = sample.request.plan, sample.groups
    size = (sample.image.shape[1], sample.image.shape[2])
    draws = len(sample.baselines) if starts(plan) else 1
    parts = 0 if groups is None else len(groups.family.parts.members)
    found = {}
    for method in plan.methods:
        own = replace(plan, methods=(method,))
        channels = model.facts.layers[plan.layer][1] if METHODS[method].by_channel else 0
        points = evaluations(own, size, draws=draws, groups=parts, channels=channels)
        found[method] = Cost(points, seconds_beside(own, size, draws=draws, groups=parts))
    return found


def cost(model: Inspected, sample: PreparedRequest) -> Cost:
    """The estimated cost of the request's map, corrected by what maps of its methods have taken so far."""
    plan, found = sample.request.plan, costs(model, sample)
    points = sum(own.points * model.facts.cost_ratio_of(method, _layer(plan, method)) for method, own in found.items())
    return Cost(math.ceil(points), sum(own.seconds for own in found.values()))


def key_of(sample: PreparedRequest, target: Target) -> tuple[object, ...]:
    """The cache key of a request's explanation, be it path integrals or a map."""
    plan = sample.request.plan
    if sample.request.by_path:
        return path_key(sample, target)
    return (
        sample.key,
        target,
        plan,
        digest(sample.baselines) if starts(plan) else None,
        None if (masks := _masks(sample)) is None else digest(masks),
    )


def batches(samples: Sequence[PreparedRequest]) -> list[list[int]]:
    """The indices of the requests, grouped by what can be evaluated at once: one plan, and equal shapes."""
    found: dict[object, list[int]] = {}
    for index, sample in enumerate(samples):
        plan = sample.request.plan
        draws = len(sample.baselines) if starts(plan) else 0
        found.setdefault((plan, sample.image.shape, draws, _by_groups(sample)), []).append(index)
    return list(found.values())


def compute_maps(
    model: Inspected,
    samples: Sequence[PreparedRequest],
    targets: Sequence[Target],
    scores: Sequence[Tensor],
    before_rows: Callable[[int], None] | None = None,
    seconds_per_point: float = 0.0,
) -> list[AttributionMap]:
    """The maps of requests that can be evaluated at once.

    Args:
        model: Model that is explained.
        samples: Requests of one of :func:`batches`.
        targets: Index of the class of each, or of the two whose scores' difference is explained.
        scores: (classes,) scores of each.
        before_rows: Function called before each evaluation, with the number of evaluations, these included; what it
            raises ends the work.
        seconds_per_point: Seconds that a path point takes, by which the methods' cost ratios are measured; 0 to learn
            nothing.

    Raises:
        RequestError: 400 for an option's value, 422 for a method that the model does not support.
    """
    plan = samples[0].request.plan
    # A folded network hides some of its non-linearities from methods that treat these by rules of their own.
    network = model.original_network() if plan.needs_original else model.network
    images = torch.stack([sample.image for sample in samples]).to(model.device)
    seen = _Observed([], {})
    material, maps, baseline_scores = _material(samples, plan, model.device, seen), [], None
    with (
        _told(model, samples[0]),
        contrasted(network, targets) as (scored, columns),
        watched(scored, before_rows) as (forward, rows),
    ):
        classes = torch.tensor(columns, device=model.device)
        if material.baselines is not None:
            ends = partial(_baseline_scores, forward, material.baselines, classes)
            baseline_scores = halving_chunks(ends, model.chunk)
        for method in plan.methods:
            own, counted = replace(plan, methods=(method,)), rows[0]

            def attempt(chunk: int, own: AttributionConfig = own, counted: int = counted) -> Tensor:
                rows[0] = counted  # without those of an attempt that failed
                seen.clear()
                return run(own, forward, images, classes, material, chunk=chunk)

            with _learning(model, samples, method, seconds_per_point):
                maps.append(halving_chunks(attempt, model.chunk))
        found_maps = product(plan, maps).cpu()
    each = -(-rows[0] // len(samples))
    integrals, covariances = seen.integrals(plan, len(samples)), seen.covariances(plan)
    return [
        AttributionMap(
            found_maps[index].clone(),
            score_of(scores[index], target),
            each,
            None if baseline_scores is None else baseline_scores[index].item(),
            None if integrals is None else integrals[index],
            covariances.get(index),
        )
        for index, target in enumerate(targets)
    ]


@torch.no_grad()
def _baseline_scores(forward: Forward, baselines: Tensor, classes: Tensor, chunk: int) -> Tensor:
    """(B,) float64 scores of the baselines (D, B, C, H, W), averaged over the draws, on the CPU."""
    scores = torch.cat([forward(rows) for rows in baselines.flatten(0, 1).split(chunk)])
    return target_scores(scores, classes.repeat(len(baselines))).view(len(baselines), -1).double().cpu().mean(0)


def response_payload(
    model: Model,
    sample: PreparedRequest,
    target: Target,
    scores: Tensor,
    explanation: PathAttribution | AttributionMap,
) -> dict[str, Any]:
    """All entries that an answer of ``/explanations`` may have, be it a path's or a map's; `select` picks from them."""
    if isinstance(explanation, AttributionMap):
        result = map_result(model, sample, target, scores, explanation)
    else:
        result = explanation_result(model, sample, target, scores, explanation)
    return result | {"frame": frame(sample.geometry)} | photo_masks(result, sample)


def map_result(
    model: Model, sample: PreparedRequest, target: Target, scores: Tensor, found: AttributionMap
) -> dict[str, Any]:
    """All entries that a map's answer may have; :func:`imagexplain.api.response.select` picks from them."""
    request, plan = sample.request, sample.request.plan
    result: dict[str, Any] = {
        "map": found.attribution.unsqueeze(0),
        **target_result(model, scores, target),
        "score": found.score,
        "finite": bool(found.attribution.isfinite().all()),
        "method": plan.name,
        "options": {CLIENTS_NAMES.get(name, name): value for name, value in plan.settings().items()},
        "evaluations": found.evaluations,
        "model": model.spec.address,
        "top": ranking(model, scores),
    }
    if plan.layer is not None:
        result["layer"] = plan.layer
    if plan.normalized:
        result["normalized"] = True
    if plan.smoothing is not None:
        result["smooth"] = vars(plan.smoothing)
    if starts(plan):
        result["baseline"] = request.baseline.name
        if len(sample.baselines) > 1:
            result["draws"] = len(sample.baselines)
    if found.baseline_score is not None:
        result["baseline_score"] = found.baseline_score
    if found.integrals is not None:
        result["integrals"] = found.integrals
    if request.segments is not None:
        result["segments"] = request.segments.name
    if sample.groups is not None:
        result |= _uncertainty(found, plan, sample.groups)
        result |= group_table(_columns(found, sample, sample.groups), sample.groups)
    return result


def _columns(found: AttributionMap, sample: PreparedRequest, groups: Groups) -> dict[str, Tensor]:
    """Columns (G,) of the table of groups, by name; those of a path where the values are of groups, too."""
    plan, parts = sample.request.plan, groups.family.parts
    if not plan.of_groups:
        return {"attribution": of_each_group(found.attribution, plan, groups), "area": groups.family.area}
    values = of_parts(found.attribution, plan, groups)
    columns = score_columns(scores_of_values(values, sample.image - sample.baselines, groups.family), groups)
    if found.covariance is not None:
        columns["standard_error"] = standard_errors(found.covariance, parts.incidence)
    return columns


def _uncertainty(found: AttributionMap, plan: AttributionConfig, groups: Groups) -> dict[str, Any]:
    """Entries about the errors of groups' values, of a method that estimates them."""
    if found.covariance is None or found.baseline_score is None:
        return {}
    values, errors = of_parts(found.attribution, plan, groups), standard_errors(found.covariance)
    uncertainty = relative_uncertainty(values, errors, found.score - found.baseline_score)
    tolerance = plan.settings().get("tolerance", 0.0)
    return {"uncertainty": uncertainty} | ({"converged": uncertainty <= tolerance} if tolerance else {})


def of_parts(attribution: Tensor, plan: AttributionConfig, groups: Groups) -> Tensor:
    """Sums (P,), float64, of a map over channels and the pixels of each disjoint part; or its value, if it has one."""
    sums = groups.family.parts.sums(attribution)
    return sums / groups.family.parts.area if plan.of_groups else sums


def of_each_group(attribution: Tensor, plan: AttributionConfig, groups: Groups) -> Tensor:
    """Sums (G,), float64, of what the parts of each group have by :func:`of_parts`."""
    return of_parts(attribution, plan, groups) @ groups.family.parts.incidence


def _by_groups(sample: PreparedRequest) -> bool:
    """Tell whether the request's map depends on the groups that are scored."""
    return sample.groups is not None and not sample.request.plan.takes.isdisjoint(("groups", "segments"))


def _masks(sample: PreparedRequest) -> Tensor | None:
    """(S, H, W) bool segments on which the request's map depends."""
    if sample.groups is None or not _by_groups(sample):
        return None
    family = sample.groups.family
    return family.masks[torch.tensor([kind != "whole" for kind in family.kinds])]


def _material(
    samples: Sequence[PreparedRequest], plan: AttributionConfig, device: torch.device, seen: _Observed
) -> AttributionInputs:
    """Inputs of the plan's methods, which tell of their maps what is to be seen."""
    baselines = torch.stack([sample.baselines for sample in samples], dim=1).to(device) if starts(plan) else None
    masks = [mask for sample in samples if (mask := _masks(sample)) is not None]
    groups = pictures = None
    if "groups" in plan.takes:
        groups = torch.stack([sample.groups.family.parts.atoms for sample in samples if sample.groups is not None])
        groups = groups.to(device)
    if "pictures" in plan.takes:
        pictures = torch.stack([sample.preprocess.picture(sample.image) for sample in samples])
    return AttributionInputs(baselines, groups, masks or None, pictures, seen.add_gradients, seen.add_covariance)


def _layer(plan: AttributionConfig, method: str) -> str | None:
    """The layer by which a method's cost differs, if it looks at one."""
    return plan.layer if "layer" in METHODS[method].parameters else None


@dataclass(frozen=True)
class _Observed:
    """Facts that methods tell of their maps as they compute them.

    Attributes:
        sums: Sums of the integrated gradients that maps are made of, in the order of the images.
        errors: Covariances of the errors of groups' values, by the index of the image.
    """

    sums: list[Tensor]
    errors: dict[int, list[Tensor]]

    def clear(self) -> None:
        self.sums.clear()
        self.errors.clear()

    def add_gradients(self, gradients: Tensor) -> None:
        self.sums.append(gradients.detach().flatten(1).sum(1, dtype=torch.float64).cpu())

    def add_covariance(self, index: int, covariance: Tensor) -> None:
        self.errors.setdefault(index, []).append(covariance)

    def integrals(self, plan: AttributionConfig, count: int) -> Tensor | None:
        """(B,) float64 sums of the integrated gradients, over noise their mean; None for maps of other things."""
        return torch.cat(self.sums).view(count, -1).mean(1) if self.sums and _adds(plan) else None

    def covariances(self, plan: AttributionConfig) -> dict[int, Tensor]:
        """Covariance (P, P) of each image's values that have one."""
        return {index: torch.stack(found).mean(0) for index, found in self.errors.items()} if _adds(plan) else {}


def _adds(plan: AttributionConfig) -> bool:
    """Tell whether a map is a method's, or its mean over noise: neither a product nor another statistic."""
    return len(plan.methods) == 1 and (plan.smoothing is None or plan.smoothing.statistic == "mean")


@contextmanager
def _learning(
    model: Inspected, samples: Sequence[PreparedRequest], method: str, seconds_per_point: float
) -> Iterator[None]:
    """Measure the time of a method's maps, to correct the next estimate; one that was given up is measured as well."""
    own = [costs(model, sample)[method] for sample in samples]
    points, beside = sum(one.points for one in own), sum(one.seconds for one in own)
    started, finished = time.perf_counter(), False
    try:
        yield
        finished = True
    finally:
        if points >= MIN_EVALUATIONS_FOR_TIMING and seconds_per_point > 0:
            took = time.perf_counter() - started
            # What is beside the model is estimated generously: it may not account for more than half.
            ratio = max(took - beside, took / 2) / (points * seconds_per_point)
            layer = _layer(samples[0].request.plan, method)
            model.facts.learn(method, layer, ratio, finished=finished)


@contextmanager
def watched(network: Forward, before_rows: Callable[[int], None] | None = None) -> Iterator[tuple[Forward, list[int]]]:
    """The network, and a list of one number: the evaluations that it has made."""
    rows = [0]

    def count(images: Tensor) -> None:
        rows[0] += len(images)
        if before_rows is not None:
            before_rows(rows[0])

    if isinstance(network, nn.Module):
        handle = network.register_forward_pre_hook(lambda _, given: count(given[0]))
        try:
            yield network, rows
        finally:
            handle.remove()
        return

    def forward(images: Tensor) -> Tensor:
        count(images)
        return network(images)

    yield forward, rows


@contextmanager
def _told(model: Inspected, sample: PreparedRequest) -> Iterator[None]:
    """Turn the library's errors about a request's options, its layer or the model into refusals."""
    try:
        yield
        return
    except ArgumentError as error:
        refusal = _refusal(model, sample, error)
        if refusal is None:
            raise
    # Out of the except clause, whose traceback would keep the failed pass's tensors alive.
    raise refusal


def _refusal(model: Inspected, sample: PreparedRequest, error: ArgumentError) -> RequestError | None:
    plan, field, message = sample.request.plan, error.field, error.message
    if isinstance(error, LayerError) and plan.layer is not None:
        return RequestError(400, "layer", message)
    if isinstance(error, UnsupportedModelError | LayerError):
        names = model.facts.supported_methods
        supported = f". Those that are: {', '.join(names)}" if names else ""
        said = message if isinstance(error, UnsupportedModelError) else f"it has no layer to look at: {message}"
        message = f"{plan.name} is not supported by this model: {said}{supported}"
        return RequestError(422, "method", message)
    if field == "images":  # too large for it, or too patchy
        return RequestError(422, "method", f"{plan.name} does not take this model's input: {message}")
    if field in plan.settings():
        return RequestError(400, CLIENTS_NAMES.get(field, field), message)
    return RequestError(400, OPTION_OF_INPUT.get(field, "method"), message) if field in INPUTS else None
