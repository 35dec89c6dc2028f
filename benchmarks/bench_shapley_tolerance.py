"""Tolerances of gaussian_shap against exact Shapley values: are they kept, and for how many evaluations?

    python -m benchmarks.bench_shapley_tolerance [--models lanet bit] [--scenes 8] [--seeds 3] [--out FILE]

The served demonstration models explain held-out scenes in a grid of 3 × 4 cells, whose 4,094 coalitions are all
evaluated for the exact values. A tolerance is kept where the largest error of a cell, as a part of the larger of the
score difference and the sum of the exact values' magnitudes, is within it. Twelve cells are few: the more groups, the
more evaluations a tolerance takes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.group_explanations.cases import case_of, model_of
from evaluation.machine import machine
from imagexplain.attribution.methods.gaussian_shap import gaussian_shap
from imagexplain.attribution.methods.kernel_shap import kernel_shap
from imagexplain.attribution.uncertainty import standard_errors
from imagexplain.progress import say

TOLERANCES = (0.3, 0.2, 0.1, 0.05)
ROWS, COLUMNS = 3, 4


def grid(height: int, width: int) -> Tensor:
    """Cell numbers (H, W) of a grid."""
    rows, columns = torch.arange(height) * ROWS // height, torch.arange(width) * COLUMNS // width
    return rows.unsqueeze(1) * COLUMNS + columns


def trials(name: str, scenes: int, seeds: int) -> Iterator[dict[str, float]]:
    """Yield what each tolerance led to: coverage of the 95 % intervals, largest error, evaluations."""
    model = model_of(name)
    rows = [0]

    def scores(images: Tensor) -> Tensor:
        rows[0] += len(images)
        return model.network(images)

    for index in range(scenes):
        one = case_of(name, index)
        cells = grid(*one.image.shape[1:])
        given: dict[str, Any] = {"groups": cells, "baselines": model.start().unsqueeze(0)}

        def values(maps: Tensor, cells: Tensor = cells) -> Tensor:
            return torch.stack([maps[0, 0][cells == cell][0] for cell in range(ROWS * COLUMNS)]).double()

        exact = values(kernel_shap(scores, one.image[None], one.label, samples=2 ** (ROWS * COLUMNS), **given))
        scale = max(abs(exact.sum().item()), exact.abs().sum().item())
        for tolerance in TOLERANCES:
            for seed in range(seeds):
                told: dict[int, Tensor] = {}
                rows[0] = 0
                options: dict[str, Any] = {"samples": 4000, "tolerance": tolerance, "seed": seed}
                found = gaussian_shap(
                    scores, one.image[None], one.label, **given, **options, observe_covariance=told.__setitem__
                )
                errors = (values(found) - exact).abs()
                yield {
                    "tolerance": tolerance,
                    "coverage": (errors <= 1.96 * standard_errors(told[0]) + 1e-6 * scale).double().mean().item(),
                    "largest error": errors.max().item() / scale,
                    "evaluations": rows[0],
                }


def summary(found: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means by tolerance, and the part of the trials that kept it."""
    means = {}
    for tolerance in TOLERANCES:
        own = [each for each in found if each["tolerance"] == tolerance]
        mean = {name: float(np.mean([each[name] for each in own])) for name in own[0] if name != "tolerance"}
        kept = float(np.mean([each["largest error"] <= tolerance for each in own]))
        means[str(tolerance)] = {name: round(value, 4) for name, value in {"kept": kept, **mean}.items()}
    return means


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lanet", "bit"])
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "scenes": given.scenes, "seeds": given.seeds, "models": {}}
    for name in given.models:
        results["models"][name] = summary(list(trials(name, given.scenes, given.seeds)))
        for tolerance, means in results["models"][name].items():
            say(f"{name}, tolerance {tolerance}: " + ", ".join(f"{key} {value:g}" for key, value in means.items()))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
