"""Score the explanations of a classifier with real weights on photographs, without annotations.

Photos that the network names with confidence are put together to mosaics: does what supports a class lie in its own
tile (grid pointing game), by pixel and by segment, and from which baseline? On the photos themselves: what does the
network say as pixels and superpixels go or come in the map's order, do the scores agree with what removals cost (SaCo,
infidelity), do they hold under noise, and do they depend on what the network has learnt, layer by layer?

evaluate_photos.py --photos DIR --out benchmarks/results_photos.json
evaluate_photos.py --print
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import imagexplain.attribution as library
from evaluation import photo_tables
from evaluation.added_methods import check_same, with_methods
from evaluation.entries import Entry, entries_of, supported
from evaluation.evaluated_model import EvaluatedModel, as_built
from evaluation.harness import averages
from evaluation.machine import machine
from evaluation.method_study import SCORED
from evaluation.method_tables import summary
from evaluation.parallel import run
from evaluation.photo_study import GridPointingGame, PhotoStudy, SegmentGame, by_photo, knowledge
from evaluation.photos import (
    KnownPhotograph,
    Photograph,
    at_size,
    draw_mosaics,
    known,
    mosaic_cases,
    packaged,
    photo_cases,
    photos_in,
    read,
    references,
)
from evaluation.settings import Settings
from imagexplain.attribution.config import Smoothing
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.runner import evaluations
from imagexplain.errors import ArgumentError
from imagexplain.progress import say
from imagexplain.vision.superpixels import SlicSettings

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "captum", "timm", "scikit-image", "numpy")
LABELS = ROOT / "archive_specs/labels/imagenet.txt"
REFERENCES = 16


@dataclass(frozen=True)
class PhotoSettings:
    """Extent of the measurements: mosaics, photos, evaluations.

    Attributes:
        threshold: Least probability of a photo's class.
        seed: Seed of the mosaics.
        mosaics: Number of mosaics by their tiles along a side.
        tile: Side of a tile in pixels; the authors' mosaics have tiles of the network's own size.
        affordable: Largest number of evaluations of a method that plays in mosaics of more than 2 × 2.
        points: Number of points of paths; windows, masks and coalitions go with it.
        photos: Largest number of photos scored alone.
        randomized: Number of photos explained with randomized parameters too.
        noisy: Number of photos on which max-sensitivity is measured.
        stages: Number of stages of randomization.
        superpixels: Approximate number of superpixels of a photo; a tile has half as many.
    """

    threshold: float = 0.5
    seed: int = 0
    mosaics: Mapping[int, int] | None = None
    tile: int = 224
    affordable: int = 14
    points: int = 10
    photos: int = 1000
    randomized: int = 2
    noisy: int = 1
    stages: int = 3
    superpixels: int = 24

    @property
    def grids(self) -> Mapping[int, int]:
        """Number of mosaics by their tiles along a side."""
        return {2: 4, 3: 1} if self.mosaics is None else self.mosaics


def options(points: int, size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Options by method, so that all methods take about the same number of evaluations and a study takes minutes."""
    window = max(1, min(size) // 8)
    paths = {name: {"steps": points} for name in ("integrated_gradients", "blur_ig", "guided_ig", "idgi")}
    return {
        **paths,
        "expected_gradients": {"samples": points},
        "smoothgrad": {"samples": points},
        "xrai": {"steps": max(1, points // 2)},
        "rise": {"samples": 12 * points},
        "ss_cam": {"samples": 1},
        "kernel_shap": {"samples": 12 * points},
        "gaussian_shap": {"samples": 12 * points},
        "lime": {"samples": 12 * points},
        "occlusion": {"size": 2 * window, "stride": window},
    }


def entries_at(
    model: EvaluatedModel, names: Sequence[str], settings: PhotoSettings, score_cam_layer: str | None
) -> tuple[list[Entry], dict[str, str]]:
    """The entries that the model supports at its size, and the others' reasons."""
    size = model.preprocess.size
    smoothed = {"integrated_gradients": ({"steps": max(1, settings.points // 2)}, Smoothing(samples=4))}
    found = []
    for entry in entries_of(names, options(settings.points, size), smoothed):
        plan = entry.plan
        if plan and plan.methods in (("score_cam",), ("ss_cam",)):
            plan = replace(plan, layer=score_cam_layer)
        found.append(Entry(entry.name, plan))
    return supported(found, model.network, torch.zeros(1, 3, *size))


def affordable(entries: Sequence[Entry], size: tuple[int, int], most: int) -> list[Entry]:
    """The entries of at most so many evaluations an image, forward and backward."""
    return [
        entry
        for entry in entries
        if entry.plan is None or evaluations(entry.plan, size, groups=100, channels=1000) <= most
    ]


def evaluate(
    model: EvaluatedModel,
    photos: Sequence[Photograph],
    names: Sequence[str],
    settings: PhotoSettings,
    scoring: Settings,
    *,
    labels: Sequence[str],
    score_cam_layer: str | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """All results, as the JSON file holds them.

    Args:
        model: Model as it was built.
        photos: All photos, of which those that it names with confidence are used.
        names: Names of the methods.
        settings: Extent of what is measured.
        scoring: Settings of the metrics.
        labels: Names of the model's classes.
        score_cam_layer: Layer of Score-CAM, which evaluates the network for each of its channels; None for the default.
        workers: Number of processes.

    Raises:
        ArgumentError: too few photos that the network names with confidence, or a size that it does not take.
    """
    if settings.grids.get(2, 0) < 1:
        raise ArgumentError("mosaics", f"wanted at least one of 2×2, got {dict(settings.grids)}")
    sure = known(model, photos, settings.threshold)
    for side, count in settings.grids.items():  # before anything is computed
        draw_mosaics(len(sure), side, count, settings.seed)
    chosen = {id(one.photograph) for one in sure}
    others = [photo for photo in photos if id(photo) not in chosen][:REFERENCES] or list(photos)
    model = replace(model, rule=quadrature("gauss_legendre", settings.points))
    results: dict[str, Any] = {
        "settings": {**asdict(settings), "mosaics": dict(settings.grids), "scoring": asdict(scoring)},
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "model": model.name,
        "baseline": model.baseline,
        "seen": len(photos),
        "photos": [
            {"name": one.photograph.name, "label": labels[one.label], "probability": one.probability} for one in sure
        ],
        "minutes": {},
        "grids": {},
    }
    minutes = results["minutes"]
    for side, count in settings.grids.items():
        begin = time.perf_counter()
        drawn = draw_mosaics(len(sure), side, count, settings.seed)
        large = at_size(model, (side * settings.tile, side * settings.tile))
        groups = [mosaic_cases(large, sure, each, side, _slic(settings.superpixels // 2)) for each in drawn]
        cases = [case for group in groups for case in group]
        entries, refused = entries_at(large, names, settings, score_cam_layer)
        if side > 2:
            entries = affordable(entries, large.preprocess.size, settings.affordable)
        found = run(
            GridPointingGame(large, cases, scoring, side, entries, references(large, others)), workers, f"{side}×{side}"
        )
        results["grids"][str(side)] = {
            "size": list(large.preprocess.size),
            "mosaics": [list(each) for each in drawn],
            "photos": len({number for each in drawn for number in each}),
            "knowledge": [one for group in groups for one in knowledge(large, group, side)],
            **summary(entries, refused, by_photo(found)),
        }
        minutes[f"{side}×{side}"] = _minutes(begin)
        if side == 2:
            begin = time.perf_counter()
            scores = averages(by_photo(run(SegmentGame(large, cases, scoring, side), workers, "segments")))
            sizes = [len(group[0].partitions["superpixels"]) for group in groups]
            results["segments"] = {
                "mosaics": len(groups),
                "classes": len(cases),
                "groups": sum(sizes) / len(sizes),
                "metrics": scores[SCORED],
            }
            minutes["segments"] = _minutes(begin)
    begin = time.perf_counter()
    results["on_photos"] = _on_photos(
        model, sure, others, names, settings, scoring, score_cam_layer=score_cam_layer, workers=workers
    )
    minutes["photos"] = _minutes(begin)
    return results


def _on_photos(
    model: EvaluatedModel,
    sure: Sequence[KnownPhotograph],
    others: Sequence[Photograph],
    names: Sequence[str],
    settings: PhotoSettings,
    scoring: Settings,
    *,
    score_cam_layer: str | None,
    workers: int,
) -> dict[str, Any]:
    own = at_size(model, model.preprocess.size)
    cases = photo_cases(own, sure[: settings.photos], _slic(settings.superpixels))
    entries, refused = entries_at(own, names, settings, score_cam_layer)
    study = PhotoStudy(
        own,
        cases,
        scoring,
        entries,
        references(own, others),
        settings.randomized,
        settings.noisy,
        settings.stages,
    )
    counts = {"scored": len(cases), "randomized": min(settings.randomized, len(cases))}
    return {
        **counts,
        "noisy": min(settings.noisy, len(cases)),
        **summary(entries, refused, run(study, workers, "photos")),
    }


def added(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Results of a file with those of further methods on the same photos; those of segments by baseline are the new.

    Raises:
        ValueError: other conditions, or controls whose scores are not those of the file, so that nothing compares.
    """
    # through JSON, which knows no tuples and only texts as keys
    found = json.loads(json.dumps(found))
    check_same(before, found, "settings", "versions", "model", "baseline", "photos")
    grids = dict(before["grids"])
    for side, own in found["grids"].items():
        check_same(grids[side], own, "mosaics")
        grids[side] = with_methods(grids[side], own, found["machine"], f"{side}×{side}")
    alone = with_methods(before["on_photos"], found["on_photos"], found["machine"], "photos")
    return {**before, "grids": grids, "segments": found["segments"], "on_photos": alone}


def _slic(pieces: int) -> SlicSettings:
    return SlicSettings(n_segments=max(1, pieces))


def _minutes(begin: float) -> float:
    return round((time.perf_counter() - begin) / 60, 1)


QUICK = PhotoSettings(mosaics={2: 1}, tile=112, points=2, photos=1, randomized=1, noisy=1, stages=2, superpixels=8)


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    usual = PhotoSettings()
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="imagenet", help="name of a classifier's archive (default: imagenet)")
    made.add_argument("--labels", type=Path, default=LABELS, help="names of its classes, one a line")
    made.add_argument(
        "--photos", type=Path, action="append", metavar="DIR", help="folders of photos (default: the packages' own)"
    )
    made.add_argument("--packaged", action="store_true", help="take the packages' photos beside those of --photos")
    made.add_argument("--threshold", type=float, default=usual.threshold, help="least probability (default: 0.5)")
    made.add_argument("--methods", nargs="+", default=list(library.METHODS), metavar="METHOD", help="(default: all)")
    for side, count in usual.grids.items():
        made.add_argument(f"--mosaics-{side}x{side}", type=int, default=count, help=f"how many (default: {count})")
    made.add_argument(
        "--affordable", type=int, default=usual.affordable, help="evaluations of a method in 3×3 (default: 14)"
    )
    made.add_argument("--tile", type=int, default=usual.tile, help="side of a tile in pixels (default: 224)")
    made.add_argument("--points", type=int, default=usual.points, help="points of a path (default: 10)")
    made.add_argument("--alone", type=int, default=usual.photos, help="photos scored alone (default: all)")
    made.add_argument("--randomized", type=int, default=usual.randomized, help="photos (default: 2)")
    made.add_argument("--noisy", type=int, default=usual.noisy, help="photos for max-sensitivity (default: 1)")
    made.add_argument("--stages", type=int, default=usual.stages, help="stages of randomization (default: 3)")
    made.add_argument("--seed", type=int, default=usual.seed, help="of the mosaics (default: 0)")
    made.add_argument("--score-cam-layer", default="blocks.6", help="(default: blocks.6, 320 channels)")
    made.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: cores)")
    made.add_argument("--quick", action="store_true", help="a minute's work that shows whether everything runs")
    made.add_argument("--out", type=Path, default=ROOT / "benchmarks/results_photos.json", help="a JSON file to write")
    made.add_argument("--add", action="store_true", help="add these methods to that file's results")
    made.add_argument("--print", action="store_true", help="only print the tables of that file, in Markdown")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    usual, given = PhotoSettings(), parser(prog).parse_args(arguments)
    if not given.print:
        torch.set_num_threads(1)  # seconds are those of one core, however many workers there are
        settings = replace(
            usual,
            threshold=given.threshold,
            seed=given.seed,
            mosaics={side: n for side in usual.grids if (n := getattr(given, f"mosaics_{side}x{side}")) or side == 2},
            tile=given.tile,
            affordable=given.affordable,
            points=given.points,
            photos=given.alone,
            randomized=given.randomized,
            noisy=given.noisy,
            stages=given.stages,
        )
        scoring = Settings(removals=32, noisy=2, draws=4)
        if given.quick:
            settings, scoring = replace(QUICK, threshold=given.threshold), replace(scoring, removals=4, noisy=1)
        try:
            files = [] if given.photos and not given.packaged else packaged()
            files += [file for folder in given.photos or [] for file in photos_in(folder)]
            (model,) = as_built(ROOT / "archive_specs", [given.model])
            before = json.loads(given.out.read_text("utf-8")) if given.add else None
            results = evaluate(
                model,
                read(files),
                given.methods,
                settings,
                scoring,
                labels=given.labels.read_text("utf-8").splitlines(),
                score_cam_layer=given.score_cam_layer,
                workers=given.workers,
            )
            results = results if before is None else added(before, results)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        given.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    if not given.out.exists():
        print(f"error: out: wanted a file of results, got none at {given.out}", file=sys.stderr)
        return 1
    say("\n".join(photo_tables.markdown(json.loads(given.out.read_text("utf-8")))))
    return 0
