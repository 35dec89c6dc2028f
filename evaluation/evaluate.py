"""Scores the explanations of the demonstration models on held-out scenes whose deciding object is known.

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

import torch
from tqdm import tqdm

from evaluation import report
from evaluation.by_baseline import by_baseline
from evaluation.cases import SCENES, SUPERPIXELS, Case, case
from evaluation.game import Game, feature_ablation, leave_one_out
from evaluation.machine import machine
from evaluation.redraw import redrawn
from evaluation.sampling import GRADIENT, against_sampling
from evaluation.settings import Settings
from evaluation.study import scores_of_case
from evaluation.subject import Subject, subjects, with_network
from imagexplain.progress import say
from training.train_classifier import HELD_OUT_SEED

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "captum", "scikit-image", "numpy")
REDRAW_SEED = 0


def right_cases(subject: Subject, seed: int, count: int, kind: str) -> list[Case]:
    """Of the first so many scenes of a series, those that the model classifies rightly."""
    cases = [case(seed, index, SCENES[kind], subject.preprocess) for index in range(count)]
    with torch.no_grad():
        named = [int(subject.network(one.image.unsqueeze(0)).argmax()) for one in cases]
    return [one for one, name in zip(cases, named, strict=True) if name == one.label]


def ablation_gap(subject: Subject, cases: list[Case]) -> float:
    """The largest difference of leave-one-out effects and Captum's FeatureAblation, in units of the score."""
    gaps = []
    for one in cases:
        for groups in one.partitions.values():
            start = subject.start()
            game = Game(subject.network, one.image, start, groups.segments, one.label)
            theirs = feature_ablation(subject.network, one.image, start, groups.segments, one.label)
            gaps.append((leave_one_out(game) - theirs).abs().max().item())
    return max(gaps)


def evaluate(
    names: list[str], kinds: list[str], seed: int, count: int, costly: int, settings: Settings
) -> dict[str, Any]:
    """All results, as the JSON file holds them.

    Args:
        names: of the models.
        kinds: of scenes, keys of SCENES; sampling and baselines are measured on the first.
        seed: of the series of scenes.
        count: scenes drawn of each kind.
        costly: scenes, of those classified rightly, for max-sensitivity and for the comparison with KernelShap.
        settings: of the metrics.
    """
    results: dict[str, Any] = {
        "settings": {
            **asdict(settings),
            "seed": seed,
            "scenes": count,
            "costly_scenes": costly,
            "superpixels": asdict(SUPERPIXELS),
            "redraw_seed": REDRAW_SEED,
            "forward_passes_per_gradient": GRADIENT,
            "scene_settings": {kind: asdict(SCENES[kind]) for kind in kinds},
        },
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "models": {},
    }
    for subject, folded in subjects(ROOT / "archive_specs", names):
        results["models"][subject.name] = _evaluate(subject, folded, kinds, seed, count, costly, settings)
    return results


def _evaluate(
    subject: Subject,
    folded: torch.nn.Module,
    kinds: list[str],
    seed: int,
    count: int,
    costly: int,
    settings: Settings,
) -> dict[str, Any]:
    untaught = with_network(subject, redrawn(folded, REDRAW_SEED))
    found: dict[str, Any] = {"baseline": subject.baseline, "rule": subject.rule.rule, "steps": len(subject.rule)}
    found["scenes"] = {}
    by_kind = {kind: right_cases(subject, seed, count, kind) for kind in kinds}
    for kind, cases in by_kind.items():
        if not cases:
            raise ValueError(f"scenes: wanted some that {subject.name} classifies rightly, got none of {count}")
        rows = [
            scores_of_case(subject, untaught, one, settings, costly=kind == kinds[0] and number < costly)
            for number, one in enumerate(tqdm(cases, desc=f"{subject.name}, {kind}", unit="scene"))
        ]
        found["scenes"][kind] = {
            "drawn": count,
            "right": len(cases),
            "metrics": report.metrics(rows),
            "duels": report.duels(rows),
        }
    cases = by_kind[kinds[0]]
    found["feature_ablation_gap"] = ablation_gap(subject, cases[:costly])
    found["sampling"] = {
        kind: report.estimates(
            [
                against_sampling(subject, one, kind, settings)
                for one in tqdm(cases[:costly], desc=f"{subject.name}, KernelShap, {kind}", unit="scene")
            ]
        )
        for kind in ("superpixels", "objects")
    }
    starts = [
        by_baseline(subject, one, settings) for one in tqdm(cases, desc=f"{subject.name}, baselines", unit="scene")
    ]
    found["baselines"] = report.by_baseline(starts)
    return found


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["lanet", "bit"])
    parser.add_argument("--scenes", type=int, default=100, help="of each kind (default: 100)")
    parser.add_argument("--costly", type=int, default=25, help="for sensitivity and KernelShap (default: 25)")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the scenes; by default the held-out series")
    parser.add_argument("--out", type=Path, help="a JSON file to write, with a picture beside it")
    given = parser.parse_args(arguments)
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
