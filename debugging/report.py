"""Compare a model with what it became, on labelled images that none of them has seen.

imagexplain debug report results photos/test
imagexplain debug report results photos/test --conflicting conflicting.csv --masks masks/test

The models are the original and each run of `train`. RESULTS/report/ gets report.json, report.csv and report.html:
accuracy, and its difference to the run without a debug set, with intervals of 95 %; errors that each run fixed and
made; with --conflicting (a CSV of image,conflicting: true where the shortcut names another class), accuracy where the
shortcut holds and where it breaks; with --masks (label maps, as for `find`), where the score of the named class comes
from.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from debugging.answers import MEASURES, Respondent, answers_file, parts_by_image
from debugging.arguments import SPECS
from debugging.comparison import (
    CONFIDENCE,
    DRAWS,
    Changes,
    Estimate,
    Flags,
    Vector,
    bootstrap_mean,
    changes,
    paired_difference,
)
from debugging.debug_sets import NONE, ORIGINAL
from debugging.images import ImageFolder, labelled_folder
from debugging.model import BASELINES, DEFAULT_BASELINE, DebuggedModel, open_model
from debugging.report_page import report_page
from debugging.results import Record, read_json, same_settings, write_csv, write_json, write_text
from debugging.segmentation import LabelMaps
from debugging.selection import random_scores
from debugging.train import ADDED, FOLDER, SETTINGS, weights_of
from debugging.trainable import SPEC
from imagexplain.errors import ArgumentError, listed
from imagexplain.progress import say

EXAMPLES = 12
"""Number of pictures of errors that a model fixed, or made, at most."""

EXPLAINED = 200
"""Number of images whose segments are examined, at most."""

COLUMNS = ("model", "measure", "of", "value", "low", "high", "images")
"""Columns of ``report.csv``."""

HOLDS, BREAKS = "shortcut holds", "shortcut breaks"
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, eq=False)
class Compared:
    """The answers of one model.

    Attributes:
        right: Right answers (N,).
        truth: Probability (N,) of the true class.
        segments: Records of the segments of some images, the same for all models.
    """

    right: Flags
    truth: Vector
    segments: Sequence[Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser(prog).parse_args(arguments)
    for name in ("examples", "explained"):
        if getattr(given, name) < 0:
            raise ArgumentError(name, f"wanted a number that is not negative, got {getattr(given, name)}")
    out = given.out or given.results / "report"
    folder = labelled_folder(given.folder)
    check_unseen(folder, given.results)
    conflicting = None if given.conflicting is None else read_conflicting(given.conflicting, folder)
    models = open_models(given)
    entries = answers(given, out, folder, models)
    names = [name for name in folder.names if not any("skipped" in lines[name] for lines in entries.values())]
    if not names:
        raise ArgumentError("folder", f"wanted an image that can be read in {folder.root}, got none")
    segments = {} if given.masks is None else shares(given, out, folder, models, names)
    compared = {
        name: Compared(
            np.array([lines[image]["named"] == lines[image]["truth"] for image in names]),
            np.array([lines[image]["truth_probability"] for image in names]),
            segments.get(name, ()),
        )
        for name, lines in entries.items()
    }
    content = content_of(names, folder, compared, entries, conflicting, given.seed)
    content = {
        "folder": str(given.folder.resolve()),
        "addresses": {name: model.served.name for name, model in models.items()},
    } | content
    write_json(out / "report.json", content)
    write_csv(out / "report.csv", list(rows(content)), COLUMNS)
    write_text(out / "report.html", report_page(content, entries, folder, given.examples))
    say("\n".join(lines_of(content)))
    say(f"read {out / 'report.html'}; all numbers are in {out / 'report.csv'}")
    return 0


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of results, in which train has run")
    parser.add_argument("folder", type=Path, help="images by class, <folder>/<class>/<image>, that no run has seen")
    parser.add_argument("--out", type=Path, help="folder of the report (default: RESULTS/report)")
    parser.add_argument("--conflicting", type=Path, metavar="FILE", help="CSV of image,conflicting")
    parser.add_argument("--masks", type=Path, help="folder of label maps, <masks>/<class>/<image>.png")
    parser.add_argument(
        "--baseline",
        choices=BASELINES,
        default=DEFAULT_BASELINE,
        help=f"of paths and replaced segments (default: {DEFAULT_BASELINE})",
    )
    parser.add_argument("--steps", type=int, help="points on the path (default: the archive's)")
    parser.add_argument(
        "--explained", type=int, default=EXPLAINED, help=f"images with segments, at most (default: {EXPLAINED})"
    )
    parser.add_argument(
        "--examples", type=int, default=EXAMPLES, help=f"pictures of each kind, at most (default: {EXAMPLES})"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of resamples and of the images with segments")
    return parser


def check_unseen(folder: ImageFolder, results: Path) -> None:
    """Check that no image of a folder was trained on, or chose an epoch.

    Raises:
        ArgumentError: names how many, and the first.
    """
    photos = Path(read_json(results / FOLDER / SETTINGS, FOLDER)["photos"])
    held = {folder.file(name).resolve() for name in folder.names}
    seen = {path.resolve() for part in ("train", "val") for path in (photos / part).rglob("*")}
    for file in (results / FOLDER).glob(f"*/{ADDED}"):
        with file.open(encoding="utf-8", newline="") as text:
            seen |= {Path(row["file"]) for row in csv.DictReader(text)}
    if both := sorted(held & seen):
        raise ArgumentError("folder", f"wanted images that no run has seen, got {len(both)}, such as {both[0]}")


def read_conflicting(file: Path, folder: ImageFolder) -> dict[str, bool]:
    """The images of a CSV with columns ``image`` and ``conflicting``, true for those that contradict the shortcut.

    Raises:
        ArgumentError: no such columns, an image that is not in the folder or comes twice, or another word.
    """
    found: dict[str, bool] = {}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError("conflicting", f"{file}: cannot be read: {error}") from None
    table = csv.DictReader(text.splitlines())
    if not {"image", "conflicting"} <= set(table.fieldnames or ()):
        got = listed(table.fieldnames or ["none"])
        raise ArgumentError("conflicting", f"{file}: wanted columns image and conflicting, got {got}")
    known = set(folder.names)
    for row in table:
        name, word, place = row["image"], row["conflicting"], f"{file}: line {table.line_num}"
        if name not in known or name in found:
            raise ArgumentError("conflicting", f"{place}: wanted each image of {folder.root} once, got {name!r}")
        if word is None or word.strip().lower() not in WORDS:
            raise ArgumentError("conflicting", f"{place}: wanted one of {', '.join(WORDS)}, got {word!r}")
        found[name] = WORDS[word.strip().lower()]
    return found


def open_models(given: argparse.Namespace) -> dict[str, DebuggedModel]:
    """The original, the run without a debug set, and the others, by name.

    Raises:
        ArgumentError: other weights than those that were trained on, or no run without a debug set.
    """
    before = read_json(given.results / FOLDER / SETTINGS, FOLDER)
    models = {ORIGINAL: open_model(before["model"], SPECS, given.baseline, given.steps)}
    if weights_of(models[ORIGINAL]) != before["weights"]:
        raise ArgumentError("model", f"wanted the weights of {before['model']} that train began with, got others")
    runs = sorted(path for path in (given.results / FOLDER).iterdir() if path.is_dir())
    for run in sorted(runs, key=lambda path: path.name != NONE):
        if (run / SPEC).exists():
            models[run.name] = open_model(str(run / SPEC), SPECS, given.baseline, given.steps)
        else:
            say(f"left out: {run.name} has not finished")
    if NONE not in models:
        raise ArgumentError("results", f"wanted a finished run {NONE} in {given.results / FOLDER}, got none")
    return models


Lines = dict[str, dict[str, Any]]
"""Entries by image."""


def answers(
    given: argparse.Namespace, out: Path, folder: ImageFolder, models: Mapping[str, DebuggedModel]
) -> dict[str, Lines]:
    """Answers of all models on all images, those on record as they are.

    Raises:
        ArgumentError: other images or weights are on record.
    """
    found = {}
    for name, model in models.items():
        record = Record(answers_file(out, "answers", name))
        settings = {"folder": str(folder.root.resolve()), "weights": weights_of(model)}
        same_settings(record.file.with_suffix(".json"), settings)
        Respondent(name, model, folder).classify(record)
        found[name] = record.lines
    return found


def shares(
    given: argparse.Namespace,
    out: Path,
    folder: ImageFolder,
    models: Mapping[str, DebuggedModel],
    names: Sequence[str],
) -> dict[str, list[Mapping[str, Any]]]:
    """Records of the segments of some images, the same for all models, in the images' order.

    Raises:
        ArgumentError: other settings are on record, or an image has no label map.
    """
    if not given.masks.is_dir():
        raise ArgumentError("masks", f"wanted a folder of label maps, got {given.masks}")
    order = np.argsort(random_scores(len(names), given.seed, "segments"), kind="stable")
    chosen = [names[index] for index in sorted(order[: given.explained])]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name, model in models.items():
        record = Record(answers_file(out, "segments", name))
        settings = {
            "folder": str(folder.root.resolve()),
            "weights": weights_of(model),
            "masks": str(given.masks.resolve()),
            "baseline": given.baseline,
            "steps": given.steps,
        }
        same_settings(record.file.with_suffix(".json"), settings)
        Respondent(name, model, folder).explain(chosen, LabelMaps(given.masks), record)
        found[name] = [record.lines[image] for image in chosen]
    return found


def content_of(
    names: Sequence[str],
    folder: ImageFolder,
    compared: Mapping[str, Compared],
    entries: Mapping[str, Lines],
    conflicting: Mapping[str, bool] | None,
    seed: int,
) -> dict[str, Any]:
    """The content of ``report.json``.

    Args:
        names: Images (N,) that every model could see.
        folder: Their folder.
        compared: Answers of each model on them.
        entries: Records of each model on all images of the folder.
        conflicting: Flags of images that contradict the shortcut; None where nobody says.
        seed: Seed of the resamples.
    """
    subsets: dict[str, Flags] = {}
    if conflicting is not None:
        for subset, flag in ((HOLDS, False), (BREAKS, True)):
            subsets[subset] = np.array([conflicting.get(name) is flag for name in names])
    first = next(iter(entries.values()))
    return {
        "images": len(names),
        "skipped": [{"image": name, "reason": entry["skipped"]} for name, entry in first.items() if "skipped" in entry],
        "unmarked": None if conflicting is None else sum(name not in conflicting for name in names),
        "explained": len(next(iter(compared.values())).segments),
        "confidence": CONFIDENCE,
        "resamples": DRAWS,
        "seed": seed,
        "models": {name: _judged(name, names, folder, compared, subsets, seed) for name in compared},
    }


def _judged(
    name: str,
    names: Sequence[str],
    folder: ImageFolder,
    compared: Mapping[str, Compared],
    subsets: Mapping[str, Flags],
    seed: int,
) -> dict[str, Any]:
    """All numbers of one model."""
    own, original, none = compared[name], compared[ORIGINAL], compared[NONE]
    moved = changes(original.right, own.right, original.truth, own.truth)
    against = changes(none.right, own.right, none.truth, own.truth)
    labels = np.array([folder.label(image) for image in names])
    everywhere = np.ones(len(names), dtype=np.bool_)
    return {
        "accuracy": {
            subset: {
                "accuracy": _plain(bootstrap_mean(own.right[where].astype(np.float64), seed)),
                "to_none": _difference(own, none, where, seed),
                "to_original": _difference(own, original, where, seed),
            }
            for subset, where in {"all": everywhere, **subsets}.items()
        },
        "classes": {
            label: {"images": int((labels == label).sum()), "right": int(own.right[labels == label].sum())}
            for label in folder.classes
        },
        "fixed": [names[index] for index in moved.fixed],
        "made": [names[index] for index in moved.made],
        "to_none": _counts(against),
        "segments": _segments(own, original, none, seed),
    }


def _segments(own: Compared, original: Compared, none: Compared, seed: int) -> dict[str, Any]:
    """By label, the mean part of each measure, and its differences."""
    labels = sorted({label for entry in own.segments for label in entry["segments"]})
    found: dict[str, Any] = {}
    for label in labels:
        found[label] = {}
        for measure in MEASURES:
            mine, first, control = (
                np.array(parts_by_image(one.segments, label, measure), dtype=np.float64)
                for one in (own, original, none)
            )
            found[label][measure] = {
                "share": _plain(bootstrap_mean(mine[np.isfinite(mine)], seed)),
                "to_none": _plain(paired_difference(mine, control, seed)),
                "to_original": _plain(paired_difference(mine, first, seed)),
            }
    return found


def rows(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of ``report.csv``: one for each number, with its interval where it has one."""
    for model, found in content["models"].items():
        for subset, numbers in found["accuracy"].items():
            for measure, estimate in numbers.items():
                yield _row(model, measure if measure == "accuracy" else f"accuracy_{measure}", subset, estimate)
        for label, counts in found["classes"].items():
            share = counts["right"] / counts["images"] if counts["images"] else ""
            yield _row(model, "accuracy", f"class {label}", {"value": share, "images": counts["images"]})
        for measure in ("fixed", "made"):
            yield _row(model, measure, ORIGINAL, {"value": len(found[measure]), "images": content["images"]})
            yield _row(model, measure, NONE, {"value": found["to_none"][measure], "images": content["images"]})
        for label, measures in found["segments"].items():
            for measure, numbers in measures.items():
                for kind, estimate in numbers.items():
                    yield _row(model, measure if kind == "share" else f"{measure}_{kind}", f"segment {label}", estimate)


def lines_of(content: Mapping[str, Any]) -> list[str]:
    """Lines for a person: accuracy of each model, and its errors fixed and made."""
    width = max(map(len, content["models"]))
    lines = [f"{content['images']} images, {len(content['skipped'])} skipped"]
    if content["unmarked"]:
        lines.append(f"{content['unmarked']} images are not said to be conflicting or not")
    for name, found in content["models"].items():
        numbers = found["accuracy"]["all"]
        line = f"  {name:{width}}  {_percent(numbers['accuracy'])}"
        if name not in (ORIGINAL, NONE):
            line += f", {_points(numbers['to_none'])} points to {NONE}"
        if name != ORIGINAL:
            line += f"; {len(found['fixed'])} errors fixed, {len(found['made'])} made"
        lines.append(line)
    return lines


def _row(model: str, measure: str, of: str, estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    found = estimate or {}
    numbers = {name: found.get(name, "") for name in ("value", "low", "high", "images")}
    return {"model": model, "measure": measure, "of": of, **numbers}


def _difference(own: Compared, other: Compared, where: Flags, seed: int) -> dict[str, Any] | None:
    return _plain(paired_difference(own.right[where].astype(np.float64), other.right[where].astype(np.float64), seed))


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def _counts(found: Changes) -> dict[str, int]:
    return {"fixed": len(found.fixed), "made": len(found.made)}


def _percent(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.2%} ({estimate['low']:.2%} … {estimate['high']:.2%})"


def _points(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:+.2f} ({100 * estimate['low']:+.2f} … {100 * estimate['high']:+.2f})"
