"""Estimators of the Shapley values of segments at equal cost, against converged values.

Each estimator gets the score of partial images, and where it takes them gradients, for the price of 20 to 800 forward
passes, a gradient counted by its measured cost. Scores are stored in --games and asked for once, so that an estimator
is tried without the network where its coalitions were evaluated before.

bench_group_methods.py --games DIR --models bit lanet --cases 12 --out benchmarks/results_group_methods.json
bench_group_methods.py --show benchmarks/results_group_methods.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.group_explanations import candidates, rivals
from benchmarks.group_explanations.cases import PHOTO_MODEL, SCENE_MODELS, game_of
from benchmarks.group_explanations.estimates import Estimate, ends
from benchmarks.group_explanations.game import Array, NotStoredError, StoredGame
from benchmarks.group_explanations.gaussian_process import gaussian_process
from benchmarks.group_explanations.reference import converged
from evaluation.machine import machine
from evaluation.pointing import pointing_game
from evaluation.ranks import spearman
from imagexplain.progress import say

BUDGETS = (20, 50, 150, 400, 800)
PRICES = {"lanet": 2.66, "bit": 2.40, "resnet": 2.84, "vit": 2.58, "swin_classifier": 2.44, "imagenet": 2.43}
"""Processor time of a gradient in that of a forward pass, batches of 32 (photographs 8), on one thread."""

REFERENCES = (4400, 2000, 1100)
"""Coalitions along orders for the converged values, the most that a store has, else the first."""

PACKAGES = ("torch", "captum", "shap", "scikit-learn", "numpy")
RIVALS = (
    "Captum KernelShap",
    "shap KernelExplainer",
    "shap KernelExplainer, aic",
    "shap KernelExplainer, 10 features",
    "paired KernelShap (ours)",
    "orders, antithetic",
    "LIME",
    "straight path",
    "random gradients",
)
"""What people use; the best of them at each cost is what a candidate has to beat."""


def estimators(game: StoredGame, price: float, seed: int) -> Mapping[str, Callable[[int], Estimate]]:
    """All estimators by name, each a function of the cost."""

    def shap(regularization: object) -> Callable[[int], Estimate]:
        return lambda cost: rivals.shap_kernel_explainer(game, cost, seed, regularization)

    def process(part: float) -> Callable[[int], Estimate]:
        return lambda cost: gaussian_process(game, game.facts, cost, price, seed, part)

    def to_the_path(cost: int) -> Estimate:
        path = rivals.straight_path(game, int(7 * price) + 1, price).values
        return candidates.shrunk_kernel_shap(game, cost, seed, path, 7 * price)

    return {
        "Captum KernelShap": lambda cost: rivals.captum_kernel_shap(game, cost, seed),
        "shap KernelExplainer": shap(0),
        "shap KernelExplainer, aic": shap("aic"),
        "shap KernelExplainer, 10 features": shap("num_features(10)"),
        "paired KernelShap (ours)": lambda cost: rivals.paired_kernel_shap(game, cost, seed),
        "orders, antithetic": lambda cost: rivals.orders(game, cost, seed),
        "LIME": lambda cost: rivals.lime(game, cost, seed),
        "straight path": lambda cost: rivals.straight_path(game, cost, price),
        "random gradients": lambda cost: rivals.random_gradients(game, cost, price, seed),
        "leverage SHAP": lambda cost: candidates.leverage_shap(game, cost, seed),
        "ridge to equal shares": lambda cost: candidates.shrunk_kernel_shap(game, cost, seed, None, 0),
        "ridge to the straight path": to_the_path,
        "boosted trees": lambda cost: candidates.boosted_trees(game, cost, seed),
        "regression-adjusted, quadratic": lambda cost: candidates.adjusted(game, cost, seed, candidates.quadratic),
        "regression-adjusted, trees": lambda cost: candidates.adjusted(game, cost, seed, candidates.trees),
        "Gaussian process": process(0.0),
        "Gaussian process, 0.4 on gradients": process(0.4),
        "Gaussian process, 0.8 on gradients": process(0.8),
    }


def measured(game: StoredGame, found: Estimate, reference: Estimate, effects: Array) -> dict[str, float]:
    """Agreement of an estimate with converged values and with leave-one-out effects."""
    values, truth = found.values, reference.values
    empty, full = ends(game)
    scores = {
        "rank": spearman(torch.from_numpy(values), torch.from_numpy(truth)),
        "error": float(np.linalg.norm(values - truth) / np.linalg.norm(truth)),
        "leave_one_out": spearman(torch.from_numpy(values), torch.from_numpy(effects)),
        "incomplete": float(abs(values.sum() - (full - empty)) / max(abs(full - empty), 1e-6)),
    }
    if not np.isnan(game.facts.inside).any():
        inside = torch.from_numpy(game.facts.inside)
        scores["hit"] = pointing_game(torch.from_numpy(values), inside)
        norms = np.sqrt(game.facts.squares)
        per_change = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
        scores["hit_directional"] = pointing_game(torch.from_numpy(per_change), inside)
    if found.errors is not None and reference.errors is not None:
        spread = np.hypot(found.errors, reference.errors)  # the converged values have errors, too
        scores["coverage"] = float((np.abs(values - truth) <= 1.96 * spread).mean())
    return scores


def reference_of(game: StoredGame, stored_only: bool) -> Estimate:
    """Converged values, by the longest series of orders that the store has."""
    for count in REFERENCES:
        try:
            return converged(game, game.facts, count)
        except NotStoredError:
            if not stored_only or count == REFERENCES[-1]:
                raise
    raise NotStoredError


def scored(
    game: StoredGame, price: float, names: list[str], budgets: list[int], seeds: int
) -> Iterator[dict[str, Any]]:
    """Yield the scores of every estimator at every cost; what the store lacks and nobody evaluates is left out."""
    reference = reference_of(game, True)
    _, full = ends(game)
    effects = full - game.values(1 - np.eye(game.players))
    error = float(np.linalg.norm(reference.errors) / np.linalg.norm(reference.values))  # type: ignore[arg-type]
    yield {"estimator": "converged values", "cost": 0, **measured(game, reference, reference, effects), "error": error}
    for seed in range(seeds):
        for name, estimator in estimators(game, price, seed).items():
            for cost in budgets:
                if name not in names:
                    continue
                begin = time.process_time()
                try:
                    found = estimator(cost)
                except NotStoredError:
                    continue
                seconds = time.process_time() - begin
                yield {
                    "estimator": name,
                    "cost": cost,
                    **measured(game, found, reference, effects),
                    "seconds": seconds,
                }


def table(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by estimator and cost, with the number of cases."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in dict.fromkeys(row["estimator"] for row in rows):
        for cost in dict.fromkeys(row["cost"] for row in rows if row["estimator"] == name):
            own = [row for row in rows if row["estimator"] == name and row["cost"] == cost]
            keys = [key for key in own[0] if key not in ("estimator", "cost")]
            means = {key: round(float(np.mean([row[key] for row in own if key in row])), 4) for key in keys}
            found.setdefault(name, {})[str(cost)] = {**means, "cases": len(own)}
    return found


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables as text: rank correlation / relative error / coverage."""
    for model, one in results["models"].items():
        yield f"{model}: {one['games']} games, converged to {one['estimators']['converged values']['0']['error']:.3f}"
        for name, costs in one["estimators"].items():
            if name == "converged values":
                continue
            cells = [
                f"{cell['rank']:5.2f} {min(cell['error'], 99):5.2f} "
                + (f"{cell['coverage']:.2f}" if "coverage" in cell else "    ")
                if (cell := costs.get(str(cost)))
                else " " * 16
                for cost in results["budgets"]
            ]
            yield f"  {name:36s}" + " | ".join(cells)


def parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--games", type=Path, help="folder of the stores")
    made.add_argument("--models", nargs="+", default=[*SCENE_MODELS, PHOTO_MODEL])
    made.add_argument("--cases", type=int, default=12, help="scenes or photographs of each model (default: 12)")
    made.add_argument("--first", type=int, default=0, help="number of the first")
    made.add_argument("--costs", type=int, nargs="+", default=list(BUDGETS))
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--only", nargs="+", help="names of estimators; by default all")
    made.add_argument("--stored", action="store_true", help="evaluate nothing: leave out what the stores lack")
    made.add_argument("--out", type=Path, help="a JSON file to write")
    made.add_argument("--show", type=Path, help="print the tables of a record, and do nothing else")
    return made


def main() -> int:
    """The command line; returns the exit status."""
    given = parser().parse_args()
    if given.show:
        say("\n".join(lines(json.loads(given.show.read_text()))))
        return 0
    if given.games is None:
        sys.stderr.write("error: --games: wanted a folder for the stores, got none\n")
        return 2
    given.games.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "budgets": given.costs,
        "prices": PRICES,
        "seeds": given.seeds,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "models": {},
    }
    for model in given.models:
        rows: list[dict[str, Any]] = []
        games, players = 0, []
        for index in range(given.first, given.first + given.cases):
            file = given.games / f"{model}-superpixels-{index}.npz"
            if given.stored and not file.exists():
                continue
            try:
                game = game_of(model, index, "superpixels", given.games)
            except IndexError:  # fewer photographs
                break
            if given.stored:
                game.open = _nobody
            names = given.only or list(estimators(game, 1.0, 0))
            try:
                rows += scored(game, PRICES[model], names, given.costs, given.seeds)
            except NotStoredError:
                continue
            game.save()
            games += 1
            players.append(game.players)
            say(f"{model} {index}")
        if games:
            results["models"][model] = {"games": games, "segments": players, "estimators": table(rows)}
        if given.out:
            given.out.write_text(json.dumps(results, indent=1) + "\n")
    say("\n".join(lines(results)))
    return 0


def _nobody() -> Any:
    raise NotStoredError


if __name__ == "__main__":
    sys.exit(main())
