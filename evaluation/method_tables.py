"""The scores of all methods as plain data for JSON, and as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation.every_method import DIRECTIONS, Outcome
from evaluation.line_up import Entry
from evaluation.randomisation import METRICS, THRESHOLD, fails
from evaluation.summary import means

MARK = "†"

ARROWS = {"higher": "↑", "lower": "↓", "near 0": "→ 0"}

DIGITS: Mapping[str, int] = {"forward": 0, "backward": 0}
"""Digits after the point, where they are not two."""

Nested = dict[str, Any]


def summary(entries: Sequence[Entry], refused: Mapping[str, str], outcomes: Sequence[Outcome]) -> Nested:
    """One model's results.

    Args:
        entries: that were scored.
        refused: the others, with their reasons.
        outcomes: of all parts of the work.

    Returns:
        ``plans``: what each method was asked; ``metrics``: method → metric → mean with its interval; ``fails``: methods
        that do not depend on what was learnt; ``without_meaning``: method → reason; ``refused``: method → how many of
        the images it found no meaning for, and one reason.
    """
    metrics: dict[str, dict[str, Nested]] = {}
    for (method, metric), value in means([outcome.values for outcome in outcomes]).items():
        metrics.setdefault(method, {})[metric] = asdict(value)
    images: dict[str, Nested] = {}
    for outcome in outcomes:
        for method, reason in outcome.refused.items():
            images[method] = {"images": images.get(method, {"images": 0})["images"] + 1, "reason": reason}
    return {
        "plans": {entry.name: _plan(entry) for entry in entries},
        "metrics": metrics,
        "fails": [method for method, found in metrics.items() if fails(_plain(found))],
        "without_meaning": dict(refused),
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
            f"classified rightly; max-sensitivity on {result['noisy']} of them, weights drawn anew on "
            f"{result['redrawn']}."
        )
        yield ""
        yield from _table(result["metrics"], result["fails"])
        yield ""
        if result["fails"]:
            yield (
                f"{MARK} fails the randomisation check: with weights drawn anew, the map keeps its order "
                f"(mean \\|ρ\\| above {results['settings'].get('threshold', THRESHOLD)}, signed or of magnitudes)."
            )
            yield ""
        yield from _left_out(result)


def _table(metrics: Mapping[str, Mapping[str, Mapping[str, float]]], failing: Sequence[str]) -> Iterator[str]:
    shown = [metric for metric in DIRECTIONS if any(metric in found for found in metrics.values())]
    yield "| method | " + " | ".join(f"{metric} {ARROWS[DIRECTIONS[metric]]}" for metric in shown) + " |"
    yield "| --- |" + " ---: |" * len(shown)
    for method, found in sorted(metrics.items(), key=lambda item: -item[1].get("IoU", {"mean": 0})["mean"]):
        marked = f"{method} {MARK}" if method in failing else method
        cells = [f"{found[name]['mean']:.{DIGITS.get(name, 2)}f}" if name in found else "" for name in shown]
        yield f"| {marked} | " + " | ".join(cells) + " |"


def _left_out(result: Nested) -> Iterator[str]:
    if result["without_meaning"]:
        yield "Without a meaning for this model:"
        yield ""
        yield from (f"- {method}: {reason}" for method, reason in result["without_meaning"].items())
        yield ""
    if result["refused"]:
        yield "Without a meaning for some of the images:"
        yield ""
        yield from (f"- {method}, {said['images']}: {said['reason']}" for method, said in result["refused"].items())
        yield ""


def legend(settings: Nested) -> Iterator[str]:
    """Lines that say what the columns are."""
    yield (
        "IoU, box IoU: of what the map shows above a fifth of its maximum with the deciding object. hit: the highest "
        "pixel lies in it; mass: what part of the positive values does. insertion, deletion: area under the curve of "
        f"the class's probability, by superpixel. infidelity: {settings['removals']} removals of superpixels, scores "
        "scaled to suit; scores of 0 get 1. sensitivity: the largest relative change of the superpixels' scores under "
        f"{settings['noisy']} draws of uniform noise of {settings['radius']} in model space. "
        f"{', '.join(METRICS.values())}: mean |ρ| of the map's pixels with the map after weights were drawn anew. "
        "seconds: of one core for one image; forward, backward: rows that the model evaluated."
    )
    yield ""
