"""The scores of all methods as plain data for JSON, and as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation import metrics
from evaluation.entries import Entry
from evaluation.harness import Result, averages
from evaluation.method_study import SCORED
from evaluation.metrics import shown
from evaluation.randomization import THRESHOLD, fails

MARK = "†"

DIGITS: Mapping[str, int] = {metrics.FORWARD.name: 0, metrics.BACKWARD.name: 0}
"""Digits after the point, where they are not two."""

Nested = dict[str, Any]


def summary(entries: Sequence[Entry], refused: Mapping[str, str], results: Sequence[Result]) -> Nested:
    """One model's results.

    Args:
        entries: Entries that were scored.
        refused: Reasons why the others are not supported.
        results: Results of all parts of the study.

    Returns:
        ``plans``: what each method was asked; ``metrics``: method → metric → mean with its interval; ``fails``: methods
        that do not depend on what was learnt; ``not_supported``: method → reason; ``refused``: method → number of the
        images for which it is not supported, and one reason.
    """
    scores = averages(results).get(SCORED, {})
    images: dict[str, Nested] = {}
    for result in results:
        for method, reason in result.refused.items():
            images[method] = {"images": images.get(method, {"images": 0})["images"] + 1, "reason": reason}
    return {
        "plans": {entry.name: _plan(entry) for entry in entries},
        "metrics": scores,
        "fails": [method for method, found in scores.items() if fails(_plain(found))],
        "not_supported": dict(refused),
        "refused": images,
    }


def _plan(entry: Entry) -> Nested:
    if entry.plan is None:
        return {"control": True}
    return {
        "methods": list(entry.plan.methods),
        "options": entry.plan.settings(),
        "layer": entry.plan.layer,
        "smoothing": asdict(entry.plan.smoothing) if entry.plan.smoothing else None,
        "channels": entry.channels,
    }


def _plain(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {metric: value["mean"] for metric, value in found.items()}


def markdown(results: Nested) -> Iterator[str]:
    """Lines: for each model a table, best by IoU first, and the methods that are not in it."""
    for model, result in results["models"].items():
        yield f"### {model}"
        yield ""
        yield (
            f"{result['right']} of {result['drawn']} scenes of {result['size'][0]}×{result['size'][1]} pixels, those "
            f"classified rightly; max-sensitivity on {result['noisy']} of them, randomized parameters on "
            f"{result['randomized']}."
        )
        yield ""
        yield from _table(result["metrics"], result["fails"])
        yield ""
        if result["fails"]:
            yield (
                f"{MARK} fails the randomization check: with randomized parameters, the map keeps its order "
                f"(mean \\|ρ\\| above {results['settings'].get('threshold', THRESHOLD)}, signed or of magnitudes)."
            )
            yield ""
        yield from _left_out(result)


def _table(scores: Mapping[str, Mapping[str, Mapping[str, float]]], failing: Sequence[str]) -> Iterator[str]:
    columns = shown(scores.values())
    yield "| method | " + " | ".join(metric.heading for metric in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for method, found in sorted(scores.items(), key=lambda item: -item[1].get(metrics.IOU.name, {"mean": 0})["mean"]):
        marked = f"{method} {MARK}" if method in failing else method
        cells = [_cell(found, metric.name) for metric in columns]
        yield f"| {marked} | " + " | ".join(cells) + " |"


def _cell(found: Mapping[str, Mapping[str, float]], name: str) -> str:
    return f"{found[name]['mean']:.{DIGITS.get(name, 2)}f}" if name in found else ""


def _left_out(result: Nested) -> Iterator[str]:
    if result["not_supported"]:
        yield "Not supported by this model:"
        yield ""
        yield from (f"- {method}: {reason}" for method, reason in result["not_supported"].items())
        yield ""
    if result["refused"]:
        yield "Not supported for some of the images:"
        yield ""
        yield from (f"- {method}, {said['images']}: {said['reason']}" for method, said in result["refused"].items())
        yield ""


def legend(settings: Nested) -> Iterator[str]:
    """Lines that say what the columns are."""
    yield (
        "IoU, box IoU: of what the map shows above a fifth of its maximum with the deciding object. Pointing game: the "
        "highest pixel lies in it; relevance mass accuracy: the part of the positive values that does. Insertion and "
        "deletion AUC: area under the curve of the class's probability, by superpixel. Normalized infidelity: "
        f"{settings['removals']} removals of superpixels, scores scaled to suit; scores of 0 get 1. Max-sensitivity: "
        f"the largest relative change of the superpixels' scores under {settings['noisy']} draws of uniform noise of "
        f"{settings['radius']} in model space. Parameter randomization, of magnitudes: mean |ρ| of the map's pixels, "
        "or of their magnitudes, with the map after the weights of each tensor were permuted. CPU time: seconds of one "
        "core for one image. Forward, backward evaluations: images that the model evaluated, and whose scores sent "
        "gradients back."
    )
    yield ""
