"""Score the maps of all attribution methods on held-out scenes whose deciding object is known.

Each method makes a map of each scene that the model classifies rightly: does the map show the deciding object, how does
the model answer as superpixels go or come in the map's order, do the scores foretell what removals cost, do they hold
under noise, and do they depend on what the model has learnt? Edges of the photo and chance are the controls.

evaluate_methods.py --models resnet vit --images 25 --out benchmarks/results_methods_evaluation.json
evaluate_methods.py --models swin_classifier --keep
evaluate_methods.py --methods shapley_sampling --add
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

import imagexplain.attribution as library
from evaluation import method_ranks, method_tables
from evaluation.added_methods import check_same, with_methods
from evaluation.cases import SCENES, SUPERPIXELS, Case
from evaluation.entries import Entry, entries_of, supported
from evaluation.evaluated_model import EvaluatedModel, as_built
from evaluation.harness import draw_cases, right_cases
from evaluation.machine import machine
from evaluation.method_study import MethodStudy
from evaluation.parallel import run
from evaluation.randomization import THRESHOLD
from evaluation.settings import Settings
from imagexplain.progress import say
from training.scenes import CLASSES
from training.train_classifier import HELD_OUT_SEED

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("resnet", "vit", "swin_classifier")
PACKAGES = ("torch", "captum", "timm", "scikit-image", "numpy")
REFERENCES = 16
"""Number of scenes of the same series, after those that are scored, that expected gradients compare with."""


def draw(model: EvaluatedModel, seed: int, count: int) -> tuple[list[Case], torch.Tensor]:
    """The first scenes, as far as they are classified rightly, and the scenes after them as references (R, 3, H, W)."""
    settings = replace(SCENES["standard"], size=model.preprocess.size)
    cases = draw_cases(model, seed, count + REFERENCES, settings)
    return right_cases(model, cases[:count], "images"), torch.stack([one.image for one in cases[count:]])


def conditions(seed: int, settings: Settings) -> dict[str, Any]:
    """The conditions that results must share to be compared, as the JSON file holds them."""
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


def added(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Results of a file with those of further methods of the same models, and the machine that these ran on.

    Raises:
        ValueError: other conditions, or controls whose scores are not those of the file, so that nothing compares.
    """
    check_same(before, found, "settings", "versions")
    models = dict(before["models"])
    for name, own in found["models"].items():
        if name not in models:
            raise ValueError(f"add: wanted a file with {name}, got one with {', '.join(models)}")
        models[name] = with_methods(models[name], own, found["machine"], name)
    return {**before, "models": models}


def evaluate(
    models: Sequence[EvaluatedModel],
    entries: Sequence[Entry],
    seed: int,
    images: int,
    settings: Settings,
    *,
    randomized: int,
    noisy: int,
    workers: int,
) -> dict[str, Any]:
    """All results, as the JSON file holds them.

    Args:
        models: Models as they were built.
        entries: Ways to make a map, of which each model's supported ones are scored.
        seed: Seed of the series of scenes.
        images: Number of scenes drawn for each model.
        settings: Settings of the metrics.
        randomized: Number of images explained with randomized parameters too.
        noisy: Number of images on which max-sensitivity is measured.
        workers: Number of processes.
    """
    results = conditions(seed, settings) | {"models": {}}
    for model in models:
        begin = time.perf_counter()
        cases, references = draw(model, seed, images)
        kept, refused = supported(entries, model.network, cases[0].image.unsqueeze(0))
        found = run(MethodStudy(model, cases, settings, kept, references, randomized, noisy), workers)
        results["models"][model.name] = {
            "baseline": model.baseline,
            "size": list(model.preprocess.size),
            "drawn": images,
            "right": len(cases),
            "randomized": min(randomized, len(cases)),
            "noisy": min(noisy, len(cases)),
            "workers": workers,
            "minutes": round((time.perf_counter() - begin) / 60, 1),
            **method_tables.summary(kept, refused, found),
        }
    return results


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", nargs="+", default=list(MODELS), help=f"(default: {' '.join(MODELS)})")
    made.add_argument("--methods", nargs="+", default=list(library.METHODS), metavar="METHOD", help="(default: all)")
    made.add_argument("--images", type=int, default=25, help="scenes for each model (default: 25)")
    made.add_argument("--redrawn", type=int, default=10, help="images for the randomization check (default: 10)")
    made.add_argument("--noisy", type=int, default=2, help="images for max-sensitivity (default: 2)")
    made.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the scenes; by default the held-out series")
    made.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: cores)")
    made.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results_methods_evaluation.json", help="a JSON file to write"
    )
    made.add_argument("--keep", action="store_true", help="leave that file's results of other models in it")
    made.add_argument("--add", action="store_true", help="add these methods to that file's results of the models")
    made.add_argument("--print", action="store_true", help="only print the tables of that file, in Markdown")
    made.add_argument("--ranks", action="store_true", help="only print what each method is good for by that file")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    if not (given.print or given.ranks):
        torch.set_num_threads(1)  # seconds are those of one core, however many workers there are
        try:
            kept = earlier(given.out, conditions(given.seed, Settings())) if given.keep else {}
            before = json.loads(given.out.read_text()) if given.add else None
            results = evaluate(
                as_built(ROOT / "archive_specs", given.models, CLASSES),
                entries_of(given.methods),
                given.seed,
                given.images,
                Settings(),
                randomized=given.redrawn,
                noisy=given.noisy,
                workers=given.workers,
            )
            results = {**results, "models": kept | results["models"]} if before is None else added(before, results)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        given.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if not given.out.exists():
        print(f"error: out: wanted a file of results, got none at {given.out}", file=sys.stderr)
        return 1
    results = json.loads(given.out.read_text())
    tables = [*method_tables.legend(results["settings"]), *method_tables.markdown(results)]
    say("\n".join(method_ranks.markdown(results) if given.ranks else tables))
    return 0
