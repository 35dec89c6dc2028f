"""The picture of an explanation: a heat map, or coloured segments where groups were scored, with what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from torch import Tensor

from imagexplain.api.method_options import CLIENTS_NAMES, starts
from imagexplain.api.request import synonyms
from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.differences import Target
from imagexplain.attribution.registry import METHODS
from imagexplain.serving.method_attribution import AttributionMap, of_each_group, of_parts
from imagexplain.serving.path_attribution import Model, PathAttribution, scores_of
from imagexplain.serving.prepared_request import Groups, PreparedRequest
from imagexplain.vision.figure import (
    Caption,
    ColourKey,
    Row,
    em_of,
    figure,
    magnification,
    magnified,
    number,
    shade,
)
from imagexplain.vision.heatmap import PERCENTILE, painted, seen, smoothed
from imagexplain.vision.instance_overlay import enlarged, outline
from imagexplain.vision.lettering import drawable
from imagexplain.vision.marks import numbered
from imagexplain.vision.mask_crops import CroppedMask
from imagexplain.vision.segment_overlay import coloured, marks, smallest

LARGE_INPUT = 96
"""Pixels of the shorter side of an input from which speckled maps are smoothed unless the client says otherwise."""

SIGMA = 0.05
"""Standard deviation of that smoothing, as a fraction of the input's shorter side."""

LISTED = 12
"""Number of segments with a number and a row of the legend, at most: those of the largest attributions."""

_EXPLAINED = (255, 214, 0)


@dataclass(frozen=True)
class ExplainedInstance:
    """The instance whose score is explained.

    Attributes:
        index: Index among the detections.
        score: Probability of the instance.
        cut_out: Mask over the photo.
    """

    index: int
    score: float
    cut_out: CroppedMask


def render(
    model: Model,
    sample: PreparedRequest,
    target: Target,
    scores: Tensor,
    explanation: PathAttribution | AttributionMap,
    instance: ExplainedInstance | None = None,
) -> Image.Image:
    """The overlay with title, colour key and legend, or alone and of the photo's size where that is asked for.

    Segments take the colour of their directional gradient, relative to the strongest of them; the legend names those of
    the largest attributions, each with its part of the score difference. Where there is only a map, it is what the map
    holds in a segment, for a pixel or, of methods that score groups, as a whole, and the part of all magnitudes.

    Args:
        model: Model, for its name and labels.
        sample: Prepared request.
        target: Index of the class, or of the two whose scores' difference is explained.
        scores: (classes,) scores of the image.
        explanation: Explanation of it.
        instance: Instance of a segmenter, which is outlined.
    """
    asked, photo = sample.request.picture, sample.request.photo.image
    factor = magnification(photo.size) if asked.annotated else 1
    panel = magnified(photo, factor)
    geometry = replace(sample.geometry, photo=(panel.height, panel.width))
    drawn, groups = for_display(explanation.attribution, sample.request.plan), sample.groups
    notes: list[str] = []
    rows: list[Row] = []
    if groups is None or "segment" not in groups.family.kinds:
        sigma = sigma_of(sample.request.plan, drawn.shape[-2:], asked.sigma)
        panel, scale = painted(panel, smoothed(drawn, sigma), geometry)
        key = _pixel_key(sample.request.plan, scale)
        notes += _pixel_notes(sample.request.plan, drawn, scale, sigma)
    else:
        shown = [row for row, kind in enumerate(groups.family.kinds) if kind != "whole"]
        if isinstance(explanation, PathAttribution):
            table = scores_of(explanation, groups)
            colours, attribution = table.directional[shown], table.attribution[shown]
            total = abs(explanation.score - explanation.baseline_score)
            unit = "directional gradient (attribution by the segment's distance from the baseline)"
            notes.append(
                f"%: part of the score difference {number(explanation.score - explanation.baseline_score)} "
                f"({number(explanation.score, signed=False)} from {number(explanation.baseline_score, signed=False)})"
            )
        else:
            plan = sample.request.plan
            attribution = of_each_group(drawn, plan, groups)[shown]
            colours, unit = attribution / groups.family.area[shown], "attribution for a pixel, on average"
            if plan.of_groups:
                colours, unit = attribution, "value of the segment"
            total = of_parts(drawn, plan, groups).abs().sum().item()
            notes.append("%: part of the sum of magnitudes over the segments")
        colours, attribution = colours.nan_to_num(0, 0, 0), attribution.nan_to_num(0, 0, 0)
        scale = colours.abs().max().item()
        strengths = colours / (scale or 1)
        masks = groups.family.masks[shown].cpu()
        labels = smallest(masks)
        listed = attribution.abs().argsort(descending=True, stable=True)[:LISTED].tolist()
        panel = coloured(panel, labels, strengths, geometry)
        if asked.annotated:
            numbered(panel, marks(masks, labels, listed, geometry), em_of(panel.size))
        notes.insert(0, f"colour: {unit}")
        key = ColourKey(scale)
        names = [drawable(groups.family.labels[row]) for row in shown]
        rows = [
            Row(names[row], _share(attribution[row].item(), total), shade(strengths[row].item()), place)
            for place, row in enumerate(listed, 1)
        ]
        if len(shown) > len(listed):
            rows.append(_others(drawn, groups, [shown[row] for row in listed], len(shown), total))
    if instance is not None:
        pixels = np.array(panel)
        outline(pixels, enlarged(instance.cut_out, factor), _EXPLAINED, max(2, round(em_of(panel.size) / 5)))
        panel = Image.fromarray(pixels)
        notes.append("yellow outline: the explained instance")
    if seen(geometry) != (slice(0, geometry.photo[0]), slice(0, geometry.photo[1])):
        notes.append("hatched: outside the model's view")
    title, lines = _answer(model, sample, target, scores, explanation, instance)
    caption = Caption(title, lines, key, tuple(rows), tuple(notes))
    return figure(panel, caption, photo.size, factor if asked.annotated else None)


def for_display(attribution: Tensor, plan: AttributionConfig) -> Tensor:
    """One image's map as it is drawn: less its mean where only differences tell, as of RISE's mean scores."""
    return attribution - attribution.mean() if _centred(plan) else attribution


def short(labels: Sequence[str], index: int) -> str:
    """Label for a title: the first of its synonyms, unless another label has that name as well."""
    first = next(iter(synonyms(labels[index])), labels[index])
    shared = any(first in (label, *synonyms(label)) for place, label in enumerate(labels) if place != index)
    return labels[index] if shared else first


def sigma_of(plan: AttributionConfig, size: Sequence[int], fraction: float | None = None) -> float:
    """The standard deviation, pixels, that a map over an input of (height, width) is smoothed by before it is drawn.

    Args:
        plan: Plan of the map.
        size: Height and width of the input.
        fraction: Fraction of the shorter side that the client wants; None for the default.
    """
    if fraction is None:
        speckled = any(METHODS[method].speckled for method in plan.methods)
        fraction = SIGMA if min(size) >= LARGE_INPUT and speckled else 0.0
    return fraction * min(size)


def _answer(
    model: Model,
    sample: PreparedRequest,
    target: Target,
    scores: Tensor,
    explanation: PathAttribution | AttributionMap,
    instance: ExplainedInstance | None,
) -> tuple[str, tuple[str, ...]]:
    """The title, and below it: how sure the model is, and how the explanation was made."""
    labels, (index, *other) = model.spec.labels, (target,) if isinstance(target, int) else target
    probabilities = model.head.probabilities(scores)
    one, several = _KINDS[model.head.score_kind]
    score = f"{f'difference of {several}' if other else one} {number(explanation.score, signed=False)}"
    if instance is not None:
        answer = f"instance {instance.index + 1} of the detections, probability {instance.score:.1%}, {score}"
    elif probabilities is not None and len(scores) > 1:
        best = model.head.predicted(scores)
        answer = f"probability {_percent(probabilities[index])}, {score}"
        if other:
            answer = f"probabilities {_percent(probabilities[index])} and {_percent(probabilities[other[0]])}, {score}"
        if best == index:
            answer += ", the predicted class"
        else:
            answer += f"; predicted: {drawable(short(labels, best))}, {_percent(probabilities[best])}"
    else:
        answer = score
    title = f"{'Evidence for' if probabilities is not None else 'Contributions to'} {drawable(short(labels, index))}"
    if other:
        title += f" rather than {drawable(short(labels, other[0]))}"
    return title, (answer, f"{drawable(model.spec.address)}: {_method(sample, explanation)}")


_KINDS = {
    "logit": ("score", "scores"),
    "log_odds": ("log-odds", "log-odds"),
    "probability": ("as a score", "probabilities"),
    "value": ("value", "values"),
}
"""Words for one and for several of each kind of score."""


def _method(sample: PreparedRequest, explanation: PathAttribution | AttributionMap) -> str:
    request, plan = sample.request, sample.request.plan
    said = [plan.name]
    if isinstance(explanation, PathAttribution):
        path = request.path
        placed = path.quadrature if path.tolerance is None else f"tolerance {path.tolerance:g}"
        steps = explanation.evaluations if path.tolerance is not None else path.steps
        said += [f"{steps} steps, {placed}", f"baseline {request.baseline.name}"]
        said[-1] += f" (score {number(explanation.baseline_score, signed=False)})"
    else:
        said += [f"{CLIENTS_NAMES.get(name, name)} {value}" for name, value in plan.options]
        if plan.layer is not None:
            said.append(f"layer {drawable(plan.layer)}")
        if starts(plan):
            said.append(f"baseline {request.baseline.name}")
    if plan.smoothing is not None:
        said.append(f"{plan.smoothing.statistic} over {plan.smoothing.samples} noisy copies")
    if len(sample.baselines) > 1:
        said.append(f"{len(sample.baselines)} draws")
    return ", ".join(said)


def _centred(plan: AttributionConfig) -> bool:
    return len(plan.methods) == 1 and METHODS[plan.methods[0]].centred


def _unsigned(plan: AttributionConfig) -> bool:
    coarse = all(METHODS[method].coarse for method in plan.methods)
    return coarse or (plan.smoothing is not None and plan.smoothing.statistic != "mean")


def _pixel_key(plan: AttributionConfig, scale: float) -> ColourKey:
    if _centred(plan):
        return ColourKey(scale, "below the mean", "above the mean")
    return ColourKey(scale, "", "strong") if _unsigned(plan) else ColourKey(scale)


def _pixel_notes(plan: AttributionConfig, drawn: Tensor, scale: float, sigma: float) -> list[str]:
    if scale == 0:
        notes = ["the map is zero everywhere"]
    else:
        notes = [f"colour: attribution for a pixel, full at the {PERCENTILE:g}th percentile of magnitudes"]
    if sigma > 0:
        part = sigma / min(drawn.shape[-2:])
        notes.append(f"smoothed by a Gaussian, σ {100 * part:g}% of the input's shorter side ({sigma:.1f} px)")
    if _centred(plan):
        notes.append("the map's mean is taken off")
    if not drawn.isfinite().all():
        notes.append(f"{int((~drawn.isfinite()).sum())} values that are not finite count as 0")
    return ["; ".join(notes)]


def _percent(probability: Tensor) -> str:
    """A probability, which is neither 0 nor 1 in earnest."""
    share = f"{probability:.1%}"
    return {"0.0%": "below 0.1%", "100.0%": "above 99.9%"}.get(share, share)


def _share(attribution: float, total: float) -> tuple[str, str]:
    """An attribution and its signed part of a total, none of which is of a total of 0."""
    share = f"{attribution / total:+,.1%}".replace("-", "−") if total > 0 else "–"
    return number(attribution), share


def _others(drawn: Tensor, groups: Groups, listed: Sequence[int], shown: int, total: float) -> Row:
    """The row of all that lies in no listed segment."""
    parts = groups.family.parts
    outside = ~parts.members[:, list(listed)].any(1)
    left = parts.sums(drawn.nan_to_num(0, 0, 0))[outside].sum().item()
    return Row(f"{shown - len(listed)} others", _share(left, total), None)
