"""Estimators of the Shapley values of segments at equal cost, against converged values, and of few against exact ones.

Each estimator gets the score of partial images, and where it takes them gradients, for the price of 20 to 800 forward
passes, a gradient counted by its measured cost. Scores are stored in --games and asked for once, so that an estimator
is tried without the network where its coalitions were evaluated before. A store holds photographs by their number:
with other --photos it has to be another one.

The Gaussian process has typical weights, which for the games of one model are fitted to those of all others.

bench_group_methods.py --games DIR --photos DIR --exact lanet bit --out benchmarks/results_group_methods.json
bench_group_methods.py --games DIR --photos DIR --models vit --only "boosted trees" --add --out …
bench_group_methods.py --show benchmarks/results_group_methods.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.group_explanations import candidates, rivals
from benchmarks.group_explanations.cases import PHOTO_MODEL, SCENE_MODELS, game_of
from benchmarks.group_explanations.estimates import Estimate, ends
from benchmarks.group_explanations.game import Array, NotStoredError, StoredGame
from benchmarks.group_explanations.gaussian_process import Choice, gaussian_process
from benchmarks.group_explanations.reference import converged, exact
from benchmarks.group_explanations.report import EXACT, MODELS, REFERENCE, lines, tables
from benchmarks.group_explanations.rivals import TooDearError
from benchmarks.group_explanations.typical import known_of, without_each
from benchmarks.tables import put
from evaluation.machine import machine
from evaluation.pointing import pointing_game
from evaluation.ranks import spearman
from imagexplain.progress import say

BUDGETS = (20, 50, 150, 400, 800)
PRICES = {"lanet": 2.66, "bit": 2.40, "resnet": 2.84, "vit": 2.58, "swin_classifier": 2.44, "imagenet": 2.43}
"""Processor time of a gradient in that of a forward pass, batches of 32 (photographs 8), on one thread."""

REDRAWN = 150
"""Largest cost at which all seeds are tried; at larger ones the first alone."""

ORDERED = (50, 150)
"""Costs at which segments are inserted and deleted in the order of the values, those of the first seed."""

REFERENCES = {"lanet": 4400, "bit": 4400, "resnet": 2000, "vit": 4400, "swin_classifier": 4400, "imagenet": 1100}
"""Coalitions along orders for the converged values."""

SUPERPIXELS, FEW = "superpixels", "few"
"""Partitions: superpixels as the service makes them, and at most 12 of them, whose values are known exactly."""

PARTS = {SUPERPIXELS: MODELS, FEW: EXACT}
"""Parts of the record, by their partition."""

KERNELS = (
    "each segment by ‖Δ‖²",
    "like colours alike",
    "all together, weak",
    "all together, strong",
    "neighbours together",
    "noise",
)
"""Parts of the prior, in the order of their weights."""

Measures = dict[str, dict[str, dict[str, Any]]]
"""Measures by estimator and cost."""

WEIGHTS = "weights without"
"""Key of the typical weights for each model in the record."""

PACKAGES = ("torch", "captum", "shap", "scikit-learn", "numpy")


def estimators(
    game: StoredGame, price: float, seed: int, weights: Array | None = None
) -> Mapping[str, Callable[[int], Estimate]]:
    """All estimators by name, each a function of the cost."""

    def shap(regularization: object) -> Callable[[int], Estimate]:
        return lambda cost: rivals.shap_kernel_explainer(game, cost, seed, regularization)

    def process(choice: Choice) -> Callable[[int], Estimate]:
        return lambda cost: gaussian_process(game, game.facts, cost, seed, weights, choice)

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
        "Gaussian process, sizes drawn evenly": process("drawn"),
        "Gaussian process": process("chosen"),
        "Gaussian process, chosen by relative variances": process("relative"),
        "Gaussian process, half drawn and half chosen": process("half"),
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
        positive = values.clip(0)
        scores["mass"] = float(positive @ game.facts.inside / positive.sum()) if positive.any() else 0.0
    if found.errors is not None and reference.errors is not None:
        spread = np.hypot(found.errors, reference.errors)  # the converged values have errors, too
        rounding = 1e-9 * np.abs(truth).max()  # of values that are exact both times
        scores["coverage"] = float((np.abs(values - truth) <= 1.96 * spread + rounding).mean())
    return scores


def ordered(game: StoredGame, values: Array) -> dict[str, float]:
    """Areas under the curves of the score as segments are inserted, or deleted, the one of largest value first.

    Scores are 0 for the baseline and 1 for the image, or 0 and −1 where the baseline scores higher.
    """
    ranks = np.argsort(np.argsort(-values, kind="stable"))
    prefixes = (ranks < np.arange(game.players + 1)[:, None]).astype(float)  # (K + 1, K)
    empty, full = ends(game)
    return {
        name: float(np.trapezoid((game.values(rows) - empty) / max(abs(full - empty), 1e-6), dx=1 / game.players))
        for name, rows in {"insertion": prefixes, "deletion": 1 - prefixes}.items()
    }


def stability(values: Sequence[Array]) -> dict[str, float]:
    """Mean rank correlation of the values by different seeds; nothing of fewer than two."""
    pairs = [spearman(torch.from_numpy(one), torch.from_numpy(other)) for one, other in combinations(values, 2)]
    return {"stability": float(np.mean(pairs))} if pairs else {}


def scored(
    game: StoredGame,
    price: float,
    reference: Estimate,
    names: Sequence[str],
    costs: Sequence[int],
    seeds: int,
    weights: Array | None,
) -> Iterator[dict[str, Any]]:
    """Yield the scores of every estimator at every cost.

    What the store lacks and nobody evaluates is left out, and what cannot be had for the cost.
    """
    _, full = ends(game)
    effects = full - game.values(1 - np.eye(game.players))
    error = float(np.linalg.norm(reference.errors) / np.linalg.norm(reference.values))  # type: ignore[arg-type]
    own = measured(game, reference, reference, effects) | ordered(game, reference.values)
    yield {"estimator": REFERENCE, "cost": 0, **own, "error": error}
    by_seed = defaultdict(list)
    for seed in range(seeds):
        ways = estimators(game, price, seed, weights)
        for name, cost in product(names, costs):
            if seed and cost > REDRAWN:
                continue
            begin = time.process_time() - game.seconds
            try:
                found = ways[name](cost)
            except (NotStoredError, TooDearError):
                continue
            seconds = time.process_time() - game.seconds - begin
            by_seed[name, cost].append(found.values)
            own = measured(game, found, reference, effects)
            if seed == 0 and cost in ORDERED:
                own |= ordered(game, found.values)
            if seed == seeds - 1:
                own |= stability(by_seed[name, cost])
            yield {"estimator": name, "cost": cost, **own, "seconds": seconds}


def table(cases: list[list[dict[str, Any]]]) -> Measures:
    """Means by estimator and cost over the seeds and the cases, and the rank correlation of each case.

    An estimator that one of the cases lacks at a cost is left out there: a mean of the others is of other cases.
    """
    rows = [{**row, "case": case} for case, own in enumerate(cases) for row in own]
    found: Measures = {}
    for key in dict.fromkeys((row["estimator"], row["cost"]) for row in rows):
        own = [row for row in rows if (row["estimator"], row["cost"]) == key]
        held = sorted({row["case"] for row in own})
        if len(held) < len(cases):
            continue
        each = [float(np.mean([row["rank"] for row in own if row["case"] == case])) for case in held]
        names = dict.fromkeys(name for row in own for name in row if name not in ("estimator", "cost", "case"))
        means = {name: round(float(np.mean([row[name] for row in own if name in row])), 4) for name in names}
        found.setdefault(key[0], {})[str(key[1])] = {**means, "ranks": [round(one, 3) for one in each]}
    return found


def parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--games", type=Path, help="folder of the stores")
    made.add_argument("--models", nargs="*", default=[*SCENE_MODELS, PHOTO_MODEL])
    made.add_argument("--exact", nargs="*", default=[], help="models of few segments, with exact values; none else")
    made.add_argument("--cases", type=int, default=12, help="scenes of each model, or photographs (default: 12)")
    made.add_argument("--photos", type=Path, help="folder of photographs beside those of the packages")
    made.add_argument("--costs", type=int, nargs="+", default=list(BUDGETS))
    made.add_argument("--seeds", type=int, default=3, help="series of draws of each estimator (default: 3)")
    made.add_argument("--only", nargs="+", help="names of estimators; by default all")
    made.add_argument("--stored", action="store_true", help="evaluate nothing: leave out what the stores lack")
    made.add_argument("--out", type=Path, help="a JSON file to write")
    made.add_argument(
        "--add", action="store_true", help="keep what the file holds of other models, estimators and costs"
    )
    made.add_argument("--show", type=Path, help="print the tables of a record, and do nothing else")
    made.add_argument("--write", action="store_true", help="with --show: put its tables into docs/evaluation.md")
    return made


def games_of(model: str, partition: str, given: argparse.Namespace) -> Iterator[StoredGame]:
    """Yield the games of a model, as many as are wanted and there are."""
    for index in range(given.cases):
        if given.stored and not (given.games / f"{model}-{partition}-{index}.npz").exists():
            continue
        try:
            game = game_of(model, index, partition, given.games, given.photos)
        except IndexError:  # fewer photographs
            return
        if given.stored:
            game.open = _nobody
        yield game


def main() -> int:
    """The command line; returns the exit status."""
    given = parser().parse_args()
    if given.show:
        shown = json.loads(given.show.read_text())
        say("\n".join(lines(shown)))
        if given.write:
            put("evaluation", tables(shown))
        return 0
    if given.games is None:
        sys.stderr.write("error: --games: wanted a folder for the stores, got none\n")
        return 2
    given.games.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    earlier = json.loads(given.out.read_text()) if given.add and given.out.exists() else {}
    weights = earlier.get(WEIGHTS) or _fitted(given)
    results: dict[str, Any] = {
        "budgets": sorted({*given.costs, *earlier.get("budgets", [])}),
        "prices": PRICES,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "kernels": KERNELS,
        WEIGHTS: weights,
        **{part: earlier.get(part, {}) for part in PARTS.values()},
    }
    wanted = [*((SUPERPIXELS, model) for model in given.models), *((FEW, model) for model in given.exact)]
    for partition, model in wanted:
        found = compared(model, partition, given, np.array(weights.get(model, weights[""])))
        own = results[PARTS[partition]]
        if found:
            before = own.get(model, {})
            kept = before["estimators"] if before.get("segments") == found["segments"] else {}  # of the same games
            own[model] = {**found, "estimators": {**kept, **_joined(kept, found["estimators"])}}
        if given.out:
            given.out.write_text(text_of(results))
    say("\n".join(lines(results)))
    return 0


def _joined(kept: Measures, found: Measures) -> Measures:
    """Measures found by estimator and cost, and those kept of the same estimators at other costs."""
    return {name: {**kept.get(name, {}), **costs} for name, costs in found.items()}


def compared(model: str, partition: str, given: argparse.Namespace, weights: Array | None) -> dict[str, Any] | None:
    """A model's part of the record; None where the stores lack what it takes, and nobody evaluates."""
    cases, players = [], []
    for game in games_of(model, partition, given):
        names = given.only or list(estimators(game, 1.0, 0))
        try:
            truth = exact(game) if partition == FEW else converged(game, game.facts, REFERENCES[model])
            cases.append(list(scored(game, PRICES[model], truth, names, given.costs, given.seeds, weights)))
        except NotStoredError:
            continue
        game.save()
        players.append(game.players)
        say(f"{model}, {partition}: {len(cases)}")
    if not cases:
        return None
    return {"games": len(cases), "seeds": given.seeds, "segments": players, "estimators": table(cases)}


def text_of(results: Mapping[str, Any]) -> str:
    """The record as JSON, each list of numbers on a line."""
    return re.sub(r"\n *(?=-?\d|\])", " ", json.dumps(results, indent=1)) + "\n"


def _fitted(given: argparse.Namespace) -> dict[str, list[float]]:
    """Typical weights for each model, fitted to some coalitions of all other models' scenes."""
    found: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for model in SCENE_MODELS:
        for game in games_of(model, SUPERPIXELS, given):
            with suppress(NotStoredError):
                found.setdefault(model, []).append(known_of(game))
                game.save()
    return {model: weights.round(6).tolist() for model, weights in without_each(found, SCENE_MODELS).items()}


def _nobody() -> Any:
    raise NotStoredError


if __name__ == "__main__":
    sys.exit(main())
