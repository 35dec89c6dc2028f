"""Estimators of the Shapley values of segments at equal cost, against converged values.

Each estimator gets the score of partial images, and where it takes them gradients, for the price of 20 to 800 forward
passes, a gradient counted by its measured cost. Scores are stored in --games and asked for once, so that an estimator
is tried without the network where its coalitions were evaluated before.

The Gaussian process has typical weights, which for the games of one model are fitted to those of all others.

bench_group_methods.py --games DIR --out benchmarks/results_group_methods.json
bench_group_methods.py --show benchmarks/results_group_methods.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from itertools import product
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
from benchmarks.group_explanations.typical import known_of, without_each
from evaluation.machine import machine
from evaluation.pointing import pointing_game
from evaluation.ranks import spearman
from imagexplain.progress import say

BUDGETS = (20, 50, 150, 400, 800)
PRICES = {"lanet": 2.66, "bit": 2.40, "resnet": 2.84, "vit": 2.58, "swin_classifier": 2.44, "imagenet": 2.43}
"""Processor time of a gradient in that of a forward pass, batches of 32 (photographs 8), on one thread."""

REDRAWN = 150
"""Largest cost at which all seeds are tried; at larger ones the first alone."""

REFERENCES = {"lanet": 4400, "bit": 4400, "resnet": 2000, "vit": 4400, "swin_classifier": 4400, "imagenet": 1100}
"""Coalitions along orders for the converged values."""

PHOTOS = 6
"""Number of photographs, at most."""

KERNELS = (
    "each segment by ‖Δ‖²",
    "like colours alike",
    "all together, weak",
    "all together, strong",
    "neighbours together",
    "noise",
)
"""Parts of the prior, in the order of their weights."""

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


def estimators(
    game: StoredGame, price: float, seed: int, weights: Array | None = None
) -> Mapping[str, Callable[[int], Estimate]]:
    """All estimators by name, each a function of the cost."""

    def shap(regularization: object) -> Callable[[int], Estimate]:
        return lambda cost: rivals.shap_kernel_explainer(game, cost, seed, regularization)

    def process(chosen: bool) -> Callable[[int], Estimate]:
        return lambda cost: gaussian_process(game, game.facts, cost, seed, weights, chosen)

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
        "Gaussian process, sizes drawn evenly": process(False),
        "Gaussian process": process(True),
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


def scored(
    game: StoredGame, model: str, names: list[str], costs: list[int], seeds: int, weights: Array | None
) -> Iterator[dict[str, Any]]:
    """Yield the scores of every estimator at every cost; what the store lacks and nobody evaluates is left out."""
    reference = converged(game, game.facts, REFERENCES[model])
    _, full = ends(game)
    effects = full - game.values(1 - np.eye(game.players))
    error = float(np.linalg.norm(reference.errors) / np.linalg.norm(reference.values))  # type: ignore[arg-type]
    yield {"estimator": "converged values", "cost": 0, **measured(game, reference, reference, effects), "error": error}
    for seed in range(seeds):
        ways = estimators(game, PRICES[model], seed, weights)
        for name, cost in product(names, costs):
            if seed and cost > REDRAWN:
                continue
            begin = time.process_time()
            try:
                found = ways[name](cost)
            except NotStoredError:
                continue
            seconds = time.process_time() - begin
            yield {"estimator": name, "cost": cost, **measured(game, found, reference, effects), "seconds": seconds}


def table(cases: list[list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by estimator and cost over the seeds and the cases, with the standard error of the rank over the cases."""
    rows = [{**row, "case": case} for case, own in enumerate(cases) for row in own]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for key in dict.fromkeys((row["estimator"], row["cost"]) for row in rows):
        own = [row for row in rows if (row["estimator"], row["cost"]) == key]
        each = [np.mean([row["rank"] for row in own if row["case"] == case]) for case in {row["case"] for row in own}]
        names = [name for name in own[0] if name not in ("estimator", "cost", "case")]
        means = {name: round(float(np.mean([row[name] for row in own if name in row])), 4) for name in names}
        if len(each) > 1:
            means["rank_error"] = round(float(np.std(each, ddof=1) / np.sqrt(len(each))), 4)
        found.setdefault(key[0], {})[str(key[1])] = {**means, "cases": len(each)}
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
    made.add_argument("--cases", type=int, default=12, help="scenes of each model (default: 12)")
    made.add_argument("--costs", type=int, nargs="+", default=list(BUDGETS))
    made.add_argument("--seeds", type=int, default=3, help="series of draws of each estimator (default: 3)")
    made.add_argument("--only", nargs="+", help="names of estimators; by default all")
    made.add_argument("--stored", action="store_true", help="evaluate nothing: leave out what the stores lack")
    made.add_argument("--out", type=Path, help="a JSON file to write")
    made.add_argument("--show", type=Path, help="print the tables of a record, and do nothing else")
    return made


def games_of(model: str, given: argparse.Namespace) -> Iterator[StoredGame]:
    """Yield the games of a model, as many as are wanted and there are."""
    for index in range(PHOTOS if model == PHOTO_MODEL else given.cases):
        if given.stored and not (given.games / f"{model}-superpixels-{index}.npz").exists():
            continue
        try:
            game = game_of(model, index, "superpixels", given.games)
        except IndexError:  # fewer photographs
            return
        if given.stored:
            game.open = _nobody
        yield game


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
    weights = without_each(_known(given), SCENE_MODELS)
    results: dict[str, Any] = {
        "budgets": given.costs,
        "prices": PRICES,
        "seeds": given.seeds,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "kernels": KERNELS,
        "weights without": {model: found.round(2).tolist() for model, found in weights.items()},
        "models": {},
    }
    for model in given.models:
        cases, players = [], []
        for game in games_of(model, given):
            names = given.only or list(estimators(game, 1.0, 0))
            try:
                own = scored(game, model, names, given.costs, given.seeds, weights.get(model, weights[""]))
                cases.append(list(own))
            except NotStoredError:
                continue
            game.save()
            players.append(game.players)
            say(f"{model} {len(cases)}")
        if cases:
            results["models"][model] = {"games": len(cases), "segments": players, "estimators": table(cases)}
        if given.out:
            given.out.write_text(json.dumps(results, indent=1) + "\n")
    say("\n".join(lines(results)))
    return 0


def _known(given: argparse.Namespace) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Odd parts of some coalitions of each model's scenes, and their covariances, to fit typical weights to."""
    found: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for model in SCENE_MODELS:
        for game in games_of(model, given):
            with suppress(NotStoredError):
                found.setdefault(model, []).append(known_of(game))
                game.save()
    return found


def _nobody() -> Any:
    raise NotStoredError


if __name__ == "__main__":
    sys.exit(main())
