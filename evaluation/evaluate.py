"""Score the explanations of the demonstration models on held-out scenes whose deciding object is known.

Every method gives one score to each group of the image (objects and the rest, or superpixels), and is asked: does its
top group hit the deciding object, how much of its positive mass lies inside, how does it order the groups compared with
what taking each of them away costs, and what do Captum's infidelity and max-sensitivity say. Only scenes that the model
classifies rightly count: of the others nobody knows what decided.

evaluate.py --models lanet bit --scenes 100 --out benchmarks/results_evaluation.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from evaluation import report
from evaluation.baseline_study import BaselineStudy
from evaluation.cases import SCENES, SUPERPIXELS, Case
from evaluation.coalition_game import CoalitionGame, feature_ablation, leave_one_out
from evaluation.evaluated_model import EvaluatedModel, folded_models, with_network
from evaluation.group_study import GroupStudy
from evaluation.harness import averages, draw_cases, right_cases
from evaluation.machine import machine
from evaluation.parallel import run
from evaluation.randomization import randomize_parameters
from evaluation.sampling_study import GRADIENT, SamplingStudy
from evaluation.settings import Settings
from imagexplain.progress import say
from training.scenes import CLASSES
from training.train_classifier import HELD_OUT_SEED

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "captum", "scikit-image", "numpy")
RANDOMIZATION_SEED = 0


def ablation_gap(model: EvaluatedModel, cases: list[Case]) -> float:
    """The largest difference of leave-one-out effects and Captum's FeatureAblation, in units of the score."""
    gaps = []
    for one in cases:
        for groups in one.partitions.values():
            start = model.start()
            game = CoalitionGame(model.network, one.image, start, groups.segments, one.label)
            theirs = feature_ablation(model.network, one.image, start, groups.segments, one.label)
            gaps.append((leave_one_out(game) - theirs).abs().max().item())
    return max(gaps)


def evaluate(
    names: list[str], kinds: list[str], seed: int, count: int, costly: int, settings: Settings
) -> dict[str, Any]:
    """All results, as the JSON file holds them.

    Args:
        names: Names of the models.
        kinds: Kinds of scenes, keys of SCENES; sampling and baselines are measured on the first.
        seed: Seed of the series of scenes.
        count: Number of scenes drawn of each kind.
        costly: Number of scenes, of those classified rightly, for max-sensitivity and the comparison with KernelShap.
        settings: Settings of the metrics.
    """
    results: dict[str, Any] = {
        "settings": {
            **asdict(settings),
            "seed": seed,
            "scenes": count,
            "costly_scenes": costly,
            "superpixels": asdict(SUPERPIXELS),
            "randomization_seed": RANDOMIZATION_SEED,
            "forward_passes_per_gradient": GRADIENT,
            "scene_settings": {kind: asdict(SCENES[kind]) for kind in kinds},
        },
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "models": {},
    }
    for model, folded in folded_models(ROOT / "archive_specs", names, CLASSES):
        results["models"][model.name] = _evaluate(model, folded, kinds, seed, count, costly, settings)
    return results


def _evaluate(
    model: EvaluatedModel,
    folded: nn.Module,
    kinds: list[str],
    seed: int,
    count: int,
    costly: int,
    settings: Settings,
) -> dict[str, Any]:
    randomized = with_network(model, randomize_parameters(folded, RANDOMIZATION_SEED))
    found: dict[str, Any] = {"baseline": model.baseline, "rule": model.rule.rule, "steps": len(model.rule)}
    found["scenes"] = {}
    by_kind = {kind: right_cases(model, draw_cases(model, seed, count, SCENES[kind]), "scenes") for kind in kinds}
    for kind, cases in by_kind.items():
        noisy = costly if kind == kinds[0] else 0
        results = run(GroupStudy(model, cases, settings, randomized, noisy), label=kind)
        found["scenes"][kind] = {
            "drawn": count,
            "right": len(cases),
            "metrics": averages(results),
            "duels": report.duels(results),
        }
    cases = by_kind[kinds[0]]
    found["feature_ablation_gap"] = ablation_gap(model, cases[:costly])
    found["sampling"] = {}
    for partition in ("superpixels", "objects"):
        results = run(SamplingStudy(model, cases[:costly], settings, partition), label=f"KernelShap, {partition}")
        found["sampling"][partition] = report.estimates(results, partition)
    found["baselines"] = report.by_baseline(run(BaselineStudy(model, cases, settings), label="baselines"))
    return found


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", nargs="+", default=["lanet", "bit"])
    made.add_argument("--scenes", type=int, default=100, help="of each kind (default: 100)")
    made.add_argument("--costly", type=int, default=25, help="for sensitivity and KernelShap (default: 25)")
    made.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the scenes; by default the held-out series")
    made.add_argument("--out", type=Path, help="a JSON file to write, with a picture beside it")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    begin = time.perf_counter()
    try:
        results = evaluate(given.models, list(SCENES), given.seed, given.scenes, given.costly, Settings())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results["minutes"] = round((time.perf_counter() - begin) / 60, 1)
    say("\n".join(report.lines(results)))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        report.draw(results, given.out.with_suffix(".png"))
    return 0
