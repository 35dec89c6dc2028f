"""The record as text, and as tables of docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.group_explanations.cases import PHOTO_MODEL

MODELS, EXACT = "models", "exact"
"""Parts of the record: many segments with converged values, and few with exact ones."""

REFERENCE, PROCESS = "converged values", "Gaussian process"

TITLES = {
    "lanet": "LaNet",
    "bit": "BiT",
    "resnet": "ResNet",
    "vit": "ViT",
    "swin_classifier": "Swin",
    PHOTO_MODEL: "EfficientNet-Lite0",
}
NAMES = {
    "Captum KernelShap": "Captum's KernelShap",
    "shap KernelExplainer": "shap's KernelExplainer",
    "shap KernelExplainer, aic": "the same, regularised (`aic`)",
    "paired KernelShap (ours)": "`kernel_shap`",
    "ridge to equal shares": "the same with ridge towards equal shares",
    "leverage SHAP": "leverage SHAP",
    "regression-adjusted, quadratic": "regression-adjusted, quadratic",
    "regression-adjusted, trees": "regression-adjusted, boosted trees",
    "boosted trees": "boosted trees",
    "orders, antithetic": "orders, antithetic",
    "LIME": "LIME",
    "straight path": "gradients along the straight path",
    "random gradients": "gradients at random coefficients",
    "Gaussian process, half drawn and half chosen": "`gaussian_shap`: Gaussian process, half chosen",
    "Gaussian process, sizes drawn evenly": "the same, all drawn",
    "Gaussian process": "the same, all chosen",
}
"""Estimators of the tables, as the page calls them."""

SERVED = "Gaussian process, half drawn and half chosen"
"""The estimator that the library has."""

SHOWN = ("20", "50", "150", "400")
"""Costs of the widest table."""

USES = {
    "leave_one_out": "rank by leave-one-out ↑",
    "hit": "hit ↑",
    "mass": "mass ↑",
    "insertion": "insertion ↑",
    "deletion": "deletion ↓",
    "stability": "stability ↑",
}
"""Measures other than the agreement with Shapley values, at two costs, as the page calls them."""

Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Measures by estimator and cost."""


def lead(found: Mapping[str, Mapping[str, Any]], name: str, cost: str) -> tuple[str, float, float] | None:
    """Best of the other estimators at a cost, an estimator's lead in rank, and its standard error over the cases.

    None where either was not scored. No other is the Gaussian process.
    """
    own = found.get(name, {}).get(cost)
    others = {
        other: costs[cost]
        for other, costs in found.items()
        if other != REFERENCE and not other.startswith(PROCESS) and "ranks" in costs.get(cost, {})
    }
    if own is None or "ranks" not in own or not others:
        return None
    best = max(others, key=lambda other: others[other]["rank"])
    ahead = np.subtract(own["ranks"], others[best]["ranks"])
    return best, float(ahead.mean()), float(ahead.std(ddof=1) / np.sqrt(len(ahead)))


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables as text: rank correlation / relative error / coverage."""
    costs = [str(cost) for cost in results["budgets"]]
    for part in (MODELS, EXACT):
        for model, one in results[part].items():
            yield f"{part}, {model}: {one['games']} games"
            yield from _lines_of(one["estimators"], costs)


def _lines_of(found: Mapping[str, Mapping[str, Any]], costs: Sequence[str]) -> Iterator[str]:
    def cell(own: Mapping[str, float] | None) -> str:
        if own is None:
            return " " * 16
        coverage = f"{own['coverage']:.2f}" if "coverage" in own else "    "
        return f"{own['rank']:5.2f} {min(own['error'], 99):5.2f} {coverage}"

    yield f"  converged to {found[REFERENCE]['0']['error']:.3f}"
    for name, own in found.items():
        if name != REFERENCE:
            yield f"  {name:36s}" + " | ".join(cell(own.get(cost)) for cost in costs)
    for name in (name for name in found if name.startswith(PROCESS)):
        leads = [(cost, one) for cost in costs if (one := lead(found, name, cost))]
        yield f"  {name} leads at " + "; ".join(
            f"{cost}: {by:.2f} ± {error:.2f} before {other}" for cost, (other, by, error) in leads
        )


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables of docs/evaluation.md, by name."""
    models = {model: results[MODELS][model]["estimators"] for model in TITLES if model in results[MODELS]}
    exact = {model: results[EXACT][model]["estimators"] for model in TITLES if model in results[EXACT]}
    costs = [str(cost) for cost in results["budgets"]]
    titles = [TITLES[model] for model in models]
    few = [f"{TITLES[model]}, {measure}" for model in exact for measure in ("error", "rank")]
    return {
        "ranks at equal cost": _table(
            ["estimator", *titles],
            [
                [title, *(_series(found, name, "rank", SHOWN) for found in models.values())]
                for name, title in NAMES.items()
            ],
        ),
        "leads at equal cost": _table(
            ["cost", *titles], [[cost, *(_lead(found, cost) for found in models.values())] for cost in costs]
        ),
        "errors of few segments": _table(
            ["estimator", *few],
            [
                [
                    title,
                    *(_series(exact[model], name, measure, costs) for model in exact for measure in ("error", "rank")),
                ]
                for name, title in NAMES.items()
            ],
        ),
        "what the values are good for": _table(
            ["estimator", *USES.values()],
            [[title, *(_mean(models.values(), name, use) for use in USES)] for name, title in NAMES.items()],
        ),
        "coverage": _table(
            ["values", *costs],
            [
                [f"{kind}, {TITLES[model]}", *(_series(found, SERVED, "coverage", [cost]) for cost in costs)]
                for kind, part in (("converged", models), ("exact", exact))
                for model, found in part.items()
            ],
        ),
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without the rows of which nothing was scored."""
    held = [row for row in rows if any(row[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *held])


def _series(found: Cells, name: str, measure: str, costs: Sequence[str]) -> str:
    """A measure at each cost; of one that was not scored a dash, and nothing if none was."""
    held = [found.get(name, {}).get(cost) for cost in costs]
    return " ".join(short(cell[measure]) if cell else "–" for cell in held) if any(held) else ""


def _mean(models: Iterable[Cells], name: str, measure: str) -> str:
    """A measure's mean over the models that have it, at the costs at which all of :data:`USES` are measured."""
    held = [[found[name][cost][measure] for cost in ("50", "150")] for found in models if _has(found, name, measure)]
    return " ".join(short(float(mean)) for mean in np.mean(held, 0)) if held else ""


def _has(found: Cells, name: str, measure: str) -> bool:
    return all(measure in found.get(name, {}).get(cost, {}) for cost in ("50", "150"))


def _lead(found: Cells, cost: str) -> str:
    ahead = lead(found, SERVED, cost)
    return f"{short(ahead[1])} ± {short(ahead[2])}" if ahead else ""


def short(value: float) -> str:
    """A number with two decimals and no zero in front, from 10 up without decimals."""
    if abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.2f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}") if abs(value) < 1 else f"{value:.2f}"
