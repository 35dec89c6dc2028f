"""Scores the maps of all attribution methods on held-out scenes whose deciding object is known.

Each method makes a map of each scene that the model classifies rightly: does the map show the deciding object, how does
the model answer as superpixels go or come in the map's order, do the scores foretell what removals cost, do they hold
under noise, and do they depend on what the model has learnt? Edges of the photo and chance are the controls.

evaluate_methods.py --models resnet vit --images 25 --out benchmarks/results_methods_evaluation.json
evaluate_methods.py --models swin_classifier --keep
evaluate_methods.py --print
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import imagexplain.attribution as library
from evaluation import method_tables
from evaluation.all_cases import Work, outcomes
from evaluation.cases import SCENES, SUPERPIXELS, Case, case
from evaluation.line_up import Entry, line_up, with_meaning
from evaluation.machine import machine
from evaluation.randomisation import THRESHOLD
from evaluation.settings import Settings
from evaluation.subject import Subject, as_built
from imagexplain.progress import say
from training.train_classifier import HELD_OUT_SEED

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("resnet", "vit", "swin_classifier")
PACKAGES = ("torch", "captum", "timm", "scikit-image", "numpy")
REFERENCES = 16
"""Scenes of the same series, beyond those that are scored: what expected gradients compare with."""


def right_cases(subject: Subject, seed: int, count: int) -> tuple[list[Case], torch.Tensor]:
    """Of the first scenes those classified rightly, and the references (R, 3, H, W), the scenes after them."""
    settings = replace(SCENES["standard"], size=subject.preprocess.size)
    cases = [case(seed, index, settings, subject.preprocess) for index in range(count + REFERENCES)]
    with torch.no_grad():
        named = [int(subject.network(one.image.unsqueeze(0)).argmax()) for one in cases[:count]]
    right = [one for one, name in zip(cases, named, strict=False) if name == one.label]
    if not right:
        raise ValueError(f"images: wanted some that {subject.name} classifies rightly, got none of {count}")
    return right, torch.stack([one.image for one in cases[count:]])


def conditions(seed: int, settings: Settings) -> dict[str, Any]:
    """What results have to have in common to be compared, as the JSON file holds it."""
    used = ("removals", "radius", "noisy")
    return {
        "settings": {
            **{name: value for name, value in asdict(settings).items() if name in used},
            "seed": seed,
            "references": f"{REFERENCES} other scenes of the series",
            "superpixels": asdict(SUPERPIXELS),
            "threshold": THRESHOLD,
        },
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def earlier(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Results by model of a file that may be there.

    Raises:
        ValueError: the file's conditions are not those that are wanted.
    """
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    for part, value in wanted.items():
        if found[part] != value:
            raise ValueError(f"keep: wanted a file of the same {part}, {value}, got {found[part]}")
    models: dict[str, Any] = found["models"]
    return models


def evaluate(
    subjects: Sequence[Subject],
    entries: Sequence[Entry],
    seed: int,
    images: int,
    settings: Settings,
    *,
    redrawn: int,
    noisy: int,
    workers: int,
) -> dict[str, Any]:
    """All results, as the JSON file holds them.

    Args:
        subjects: the models, as they were built.
        entries: to be scored.
        seed: of the series of scenes.
        images: scenes drawn for each model.
        settings: of the metrics.
        redrawn: images explained with weights drawn anew.
        noisy: images on which max-sensitivity is measured.
        workers: processes.
    """
    results = conditions(seed, settings) | {"models": {}}
    for subject in subjects:
        begin = time.perf_counter()
        cases, references = right_cases(subject, seed, images)
        kept, refused = with_meaning(entries, subject.network, cases[0].image.unsqueeze(0))
        work = Work(subject, kept, cases, references, settings, redrawn, noisy)
        found = list(tqdm(outcomes(work, workers), desc=subject.name, total=len(work.parts), unit="part"))
        results["models"][subject.name] = {
            "baseline": subject.baseline,
            "size": list(subject.preprocess.size),
            "drawn": images,
            "right": len(cases),
            "redrawn": min(redrawn, len(cases)),
            "noisy": min(noisy, len(cases)),
            "workers": workers,
            "minutes": round((time.perf_counter() - begin) / 60, 1),
            **method_tables.summary(kept, refused, found),
        }
    return results


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), help=f"(default: {' '.join(MODELS)})")
    parser.add_argument("--methods", nargs="+", default=list(library.METHODS), metavar="METHOD", help="(default: all)")
    parser.add_argument("--images", type=int, default=25, help="scenes for each model (default: 25)")
    parser.add_argument("--redrawn", type=int, default=10, help="images for the randomisation check (default: 10)")
    parser.add_argument("--noisy", type=int, default=2, help="images for max-sensitivity (default: 2)")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the scenes; by default the held-out series")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: cores)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results_methods_evaluation.json", help="a JSON file to write"
    )
    parser.add_argument("--keep", action="store_true", help="leave that file's results of other models in it")
    parser.add_argument("--print", action="store_true", help="only print the tables of that file, in Markdown")
    given = parser.parse_args(arguments)
    if not given.print:
        torch.set_num_threads(1)  # seconds are those of one core, however many workers there are
        try:
            kept = earlier(given.out, conditions(given.seed, Settings())) if given.keep else {}
            results = evaluate(
                as_built(ROOT / "archive_specs", given.models),
                line_up(given.methods),
                given.seed,
                given.images,
                Settings(),
                redrawn=given.redrawn,
                noisy=given.noisy,
                workers=given.workers,
            )
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        results["models"] = kept | results["models"]
        given.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if not given.out.exists():
        print(f"error: out: wanted a file of results, got none at {given.out}", file=sys.stderr)
        return 1
    results = json.loads(given.out.read_text())
    say("\n".join([*method_tables.legend(results["settings"]), *method_tables.markdown(results)]))
    return 0
