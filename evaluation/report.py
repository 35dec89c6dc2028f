"""The results as plain data for JSON, as tables for a reader, and as a picture of rank correlation against cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.methods import RIVALS
from evaluation.sampling import Estimate
from evaluation.study import DIRECTIONS, Row
from evaluation.summary import Mean, difference, mean, means

POINTING = ("hit", "hit among objects", "mass")
CHALLENGERS = ("ig", "directional")

Nested = dict[str, Any]


def metrics(cases: Sequence[Mapping[Row, float]]) -> Nested:
    """Partition → method → metric → mean with its interval."""
    nested: Nested = {}
    for (partition, method, metric), value in means(cases).items():
        nested.setdefault(partition, {}).setdefault(method, {})[metric] = asdict(value)
    return nested


def duels(cases: Sequence[Mapping[Row, float]]) -> Nested:
    """Partition → metric → challenger → rival → paired difference, with who wins where the interval excludes 0."""
    known = {row for case in cases for row in case}
    nested: Nested = {}
    for partition, metric in dict.fromkeys((row[0], row[2]) for case in cases for row in case if row[2] in POINTING):
        for challenger in CHALLENGERS:
            for rival in RIVALS:
                if (partition, challenger, metric) in known and (partition, rival, metric) in known:
                    gap = difference(cases, (partition, challenger, metric), (partition, rival, metric))
                    result = asdict(gap) | {"verdict": verdict(gap)}
                    nested.setdefault(partition, {}).setdefault(metric, {}).setdefault(challenger, {})[rival] = result
    return nested


def by_baseline(cases: Sequence[Mapping[Row, float]]) -> Nested:
    """Partition → baseline → metric → mean, over all scenes and where that baseline hides most.

    ``…, nearest third`` is the metric on the third of the scenes whose deciding object is nearest to the baseline.
    """
    nested = metrics(cases)
    for name in nested["pixels"]:
        by_distance = sorted(cases, key=lambda case: case["pixels", name, "distance"])
        nearest = metrics(by_distance[: max(1, len(cases) // 3)])
        for partition, starts in nearest.items():
            for metric, value in starts[name].items():
                nested[partition][name][f"{metric}, nearest third"] = value
    return nested


def verdict(gap: Mean) -> str:
    """What a difference of challenger and rival says; higher is better."""
    return "beats" if gap.low > 0 else "loses to" if gap.high < 0 else "level with"


def estimates(cases: Sequence[Mapping[str, Estimate]]) -> Nested:
    """Method → mean evaluations and rank correlations with their intervals."""
    return {
        method: {
            "evaluations": sum(case[method].evaluations for case in cases) / len(cases),
            "rank": asdict(mean([case[method].effects for case in cases])),
            "rank by Shapley": asdict(mean([case[method].shapley for case in cases])),
        }
        for method in cases[0]
    }


def table(
    title: str, methods: Mapping[str, Mapping[str, Mapping[str, float]]], columns: Sequence[str]
) -> Iterator[str]:
    """Lines: a row for each method, ``mean ±half the width of the interval`` for each column that has values."""
    shown = [column for column in columns if any(column in values for values in methods.values())]
    first = max(len("method"), *map(len, methods)) + 2
    widths = [max(len(column), len("-0.000 ±0.00")) + 2 for column in shown]
    yield title
    yield "method".ljust(first) + "".join(column.rjust(width) for column, width in zip(shown, widths, strict=True))
    for method, values in methods.items():
        cells = [_cell(values.get(column)) for column in shown]
        yield method.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    yield ""


def _cell(value: Mapping[str, float] | None) -> str:
    return "" if value is None else f"{value['mean']:.3f} ±{(value['high'] - value['low']) / 2:.2f}"


def lines(results: Nested) -> Iterator[str]:
    """All tables of the results as `scripts/evaluate.py` writes them."""
    headings = [f"{name} ({way})" for name, way in DIRECTIONS.items()]
    yield "Means over scenes, ± half the width of the 95 % interval. Metrics, and which way is better:"
    yield "  " + ", ".join(headings)
    yield ""
    for model, result in results["models"].items():
        for scenes, found in result["scenes"].items():
            about = f"{model}, {scenes} scenes: {found['right']} of {found['drawn']} classified rightly"
            for partition, methods in found["metrics"].items():
                yield from table(f"== {about}; {partition}", methods, list(DIRECTIONS))
            yield f"-- {about}: ours against the rivals, paired differences"
            yield from _verdicts(found["duels"])
            yield ""
        for kind, by_method in result["sampling"].items():
            shown = {
                f"{method} ({row['evaluations']:.0f} evaluations)": {
                    key: row[key] for key in ("rank", "rank by Shapley")
                }
                for method, row in by_method.items()
            }
            yield from table(f"== {model}, rank correlation against evaluations; {kind}", shown, list(DIRECTIONS))
        columns = [name for metric in (*POINTING, "distance") for name in (metric, f"{metric}, nearest third")]
        for partition, starts in result["baselines"].items():
            yield from table(f"== {model}, by baseline; {partition}", starts, columns)


def _verdicts(found: Nested) -> Iterator[str]:
    for partition, by_metric in found.items():
        for metric, challengers in by_metric.items():
            for challenger, rivals in challengers.items():
                said: dict[str, list[str]] = {}
                for rival, gap in rivals.items():
                    said.setdefault(gap["verdict"], []).append(f"{rival} ({gap['mean']:+.2f})")
                text = "; ".join(f"{verb} {', '.join(names)}" for verb, names in said.items())
                yield f"{partition}, {metric}: {challenger} {text}"


def draw(results: Nested, path: Path) -> None:
    """Writes a PNG: rank correlation with leave-one-group-out effects against model evaluations, a panel per model."""
    from matplotlib.figure import Figure

    names = list(results["models"])
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for panel, model in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = results["models"][model]["sampling"]["superpixels"]
        curve = [row for method, row in rows.items() if method.startswith("KernelShap")]
        costs = [round(row["evaluations"]) for row in curve]
        for key, style in (("rank", "-o"), ("rank by Shapley", "--s")):
            against = "leave-one-out" if key == "rank" else "Shapley values"
            heights = [row[key]["mean"] for row in curve]
            panel.plot(costs, heights, style, color="tab:grey", label=f"KernelShap, {against}")
            for method, colour in (("ig", "tab:blue"), ("|ig|", "tab:cyan"), ("directional", "tab:orange")):
                mark = "o" if key == "rank" else "s"
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
