"""The places of methods among each other on each model, from the record of an evaluation, as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from evaluation import metrics
from evaluation.metrics import Metric

QUESTIONS: Mapping[Metric, str] = {
    metrics.IOU: "the object's extent",
    metrics.POINTING_GAME: "a point in it",
    metrics.RELEVANCE_MASS: "its share",
    metrics.INSERTION: "segments that suffice",
    metrics.DELETION: "segments that are needed",
}
"""Questions that a metric answers, and so a method with a good place by it."""


def places(results: Mapping[str, Any], metric: Metric) -> dict[str, dict[str, float]]:
    """Places of the methods by a metric, 1 the best; equal values share the best place of theirs.

    Args:
        results: Record of the evaluation of several models.
        metric: Metric to rank by.

    Returns:
        Method → model → place; controls have none.
    """
    found: dict[str, dict[str, float]] = {}
    for model, result in results["models"].items():
        means = {
            method: scores[metric.name]["mean"]
            for method, scores in result["metrics"].items()
            if metric.name in scores and not result["plans"][method].get("control")
        }
        for method, mean in means.items():
            better = sum(other < mean if metric.direction == "lower" else other > mean for other in means.values())
            found.setdefault(method, {})[model] = 1 + better
    return found


def markdown(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a table: what each single method is good for, its places by that on the models, and where it fails."""
    models = list(results["models"])
    ranks = {metric: places(results, metric) for metric in QUESTIONS}
    single = {
        method: None
        for result in results["models"].values()
        for method, plan in result["plans"].items()
        if method in plan.get("methods", ()) and not plan["smoothing"]
    }
    yield f"| method | best for | its places there ({', '.join(models)}) | fails the randomization check on |"
    yield "| --- | --- | --- | --- |"
    for method in sorted(single):
        means = {metric: fmean(ranks[metric][method].values()) for metric in QUESTIONS if method in ranks[metric]}
        best = min(means, key=lambda metric: means[metric])
        own = ranks[best][method]
        cells = ", ".join(str(own[model]) if model in own else "–" for model in models)
        failing = [model for model in models if method in results["models"][model]["fails"]]
        yield f"| `{method}` | {QUESTIONS[best]} | {cells} | {', '.join(failing)} |"
