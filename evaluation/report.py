"""The results as plain data for JSON, as tables for a reader, and as a picture of rank correlation against cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation import metrics
from evaluation.baseline_study import DISTANCE
from evaluation.harness import Result, Row, averages
from evaluation.methods import CONTROLS
from evaluation.metrics import Metric, shown
from evaluation.summary import Mean, difference

LOCALISATION = tuple(
    metric.name for metric in (metrics.POINTING_GAME, metrics.POINTING_GAME_AMONG_OBJECTS, metrics.RELEVANCE_MASS)
)
CORRELATIONS = (metrics.RANK_CORRELATION.name, metrics.SHAPLEY_RANK_CORRELATION.name)
CHALLENGERS = ("ig", "directional")

Nested = dict[str, Any]


def duels(results: Sequence[Result]) -> Nested:
    """Partition → metric → challenger → control → paired difference, with who wins where the interval excludes 0."""
    cases = [result.values for result in results]
    known = {row for case in cases for row in case}
    nested: Nested = {}
    for scored, metric in dict.fromkeys((row.scored, row.metric) for case in cases for row in case):
        for challenger in CHALLENGERS if metric in LOCALISATION else ():
            for control in CONTROLS:
                ours, theirs = Row(scored, challenger, metric), Row(scored, control, metric)
                if ours in known and theirs in known:
                    gap = difference(cases, ours, theirs)
                    result = asdict(gap) | {"verdict": verdict(gap)}
                    nested.setdefault(scored, {}).setdefault(metric, {}).setdefault(challenger, {})[control] = result
    return nested


def by_baseline(results: Sequence[Result]) -> Nested:
    """Partition → baseline → metric → mean, over all scenes and where that baseline hides most.

    ``…, nearest third`` is the metric on the third of the scenes whose deciding object is nearest to the baseline.
    """
    nested = averages(results)
    for name in nested["pixels"]:
        by_distance = sorted(results, key=lambda result: result.values[Row("pixels", name, DISTANCE)])
        nearest = averages(by_distance[: max(1, len(results) // 3)])
        for scored, starts in nearest.items():
            for metric, value in starts[name].items():
                nested[scored][name][f"{metric}, nearest third"] = value
    return nested


def verdict(gap: Mean) -> str:
    """The verdict on a difference of challenger and control; higher is better."""
    return "beats" if gap.low > 0 else "loses to" if gap.high < 0 else "level with"


def estimates(results: Sequence[Result], partition: str) -> Nested:
    """Method → mean evaluations and rank correlations with their intervals."""
    counts = metrics.EVALUATIONS.name
    return {
        method: {**values, counts: values[counts]["mean"]} for method, values in averages(results)[partition].items()
    }


def table(
    title: str, methods: Mapping[str, Mapping[str, Mapping[str, float]]], columns: Sequence[str]
) -> Iterator[str]:
    """Lines: a row for each method, ``mean ±half the width of the interval`` for each column that has values."""
    given = [column for column in columns if any(column in values for values in methods.values())]
    first = max(len("method"), *map(len, methods)) + 2
    widths = [max(len(column), len("-0.000 ±0.00")) + 2 for column in given]
    yield title
    yield "method".ljust(first) + "".join(column.rjust(width) for column, width in zip(given, widths, strict=True))
    for method, values in methods.items():
        cells = [_cell(values.get(column)) for column in given]
        yield method.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    yield ""


def _cell(value: Mapping[str, float] | None) -> str:
    return "" if value is None else f"{value['mean']:.3f} ±{(value['high'] - value['low']) / 2:.2f}"


def lines(results: Nested) -> Iterator[str]:
    """All tables of the results as `scripts/evaluate.py` writes them."""
    columns = [metric.name for metric in metrics.METRICS]
    yield "Means over scenes, ± half the width of the 95 % interval. Metrics, their units and which way is better:"
    yield from (f"  {metric.name}: {metric.unit}, {metric.direction}" for metric in _metrics(results))
    yield ""
    for model, result in results["models"].items():
        for scenes, found in result["scenes"].items():
            about = f"{model}, {scenes} scenes: {found['right']} of {found['drawn']} classified rightly"
            for partition, methods in found["metrics"].items():
                yield from table(f"== {about}; {partition}", methods, columns)
            yield f"-- {about}: ours against the controls, paired differences"
            yield from _verdicts(found["duels"])
            yield ""
        for kind, by_method in result["sampling"].items():
            compared = {
                f"{method} ({row['evaluations']:.0f} evaluations)": {metric: row[metric] for metric in CORRELATIONS}
                for method, row in by_method.items()
            }
            yield from table(f"== {model}, rank correlation against evaluations; {kind}", compared, columns)
        columns_of_baselines = [
            name for metric in (*LOCALISATION, DISTANCE) for name in (metric, f"{metric}, nearest third")
        ]
        for partition, starts in result["baselines"].items():
            yield from table(f"== {model}, by baseline; {partition}", starts, columns_of_baselines)


def _metrics(results: Nested) -> list[Metric]:
    """The metrics of the scenes' tables."""
    scenes = [found for result in results["models"].values() for found in result["scenes"].values()]
    return shown(values for found in scenes for methods in found["metrics"].values() for values in methods.values())


def _verdicts(found: Nested) -> Iterator[str]:
    for partition, by_metric in found.items():
        for metric, challengers in by_metric.items():
            for challenger, controls in challengers.items():
                said: dict[str, list[str]] = {}
                for control, gap in controls.items():
                    said.setdefault(gap["verdict"], []).append(f"{control} ({gap['mean']:+.2f})")
                text = "; ".join(f"{verb} {', '.join(names)}" for verb, names in said.items())
                yield f"{partition}, {metric}: {challenger} {text}"


def draw(results: Nested, path: Path) -> None:
    """Write a PNG: rank correlation with leave-one-group-out effects against model evaluations, a panel per model."""
    from matplotlib.figure import Figure

    names = list(results["models"])
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for panel, model in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = results["models"][model]["sampling"]["superpixels"]
        curve = [row for method, row in rows.items() if method.startswith("KernelShap")]
        costs = [round(row["evaluations"]) for row in curve]
        for key, style in zip(CORRELATIONS, ("-o", "--s"), strict=True):
            against = "leave-one-out" if key == metrics.RANK_CORRELATION.name else "Shapley values"
            heights = [row[key]["mean"] for row in curve]
            panel.plot(costs, heights, style, color="tab:grey", label=f"KernelShap, {against}")
            for method, colour in (("ig", "tab:blue"), ("|ig|", "tab:cyan"), ("directional", "tab:orange")):
                mark = style[-1]
                panel.plot(
                    rows[method]["evaluations"],
                    rows[method][key]["mean"],
                    mark,
                    color=colour,
                    label=f"{method}, {against}",
                )
        panel.set(xscale="log", xlabel="forward passes (a gradient counts as 3)", ylabel="Spearman", title=model)
        panel.set_xticks(costs, [str(cost) for cost in costs])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)
