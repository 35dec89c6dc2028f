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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debugging.answers import Respondent, answers_file
from debugging.arguments import SPECS, add_path_arguments
from debugging.debug_sets import NONE, ORIGINAL
from debugging.images import ImageFolder, labelled_folder
from debugging.judgement import COLUMNS, Compared, Lines, content_of, lines_of, rows
from debugging.model import DebuggedModel, open_model
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

WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, help="folder of results, in which train has run")
    made.add_argument("folder", type=Path, help="images by class, <folder>/<class>/<image>, that no run has seen")
    made.add_argument("--out", type=Path, help="folder of the report (default: RESULTS/report)")
    made.add_argument("--conflicting", type=Path, metavar="FILE", help="CSV of image,conflicting")
    made.add_argument("--masks", type=Path, help="folder of label maps, <masks>/<class>/<image>.png")
    add_path_arguments(made)
    made.add_argument(
        "--explained", type=int, default=EXPLAINED, help=f"images with segments, at most (default: {EXPLAINED})"
    )
    made.add_argument(
        "--examples", type=int, default=EXAMPLES, help=f"pictures of each kind, at most (default: {EXAMPLES})"
    )
    made.add_argument("--seed", type=int, default=0, help="seed of resamples and of the images with segments")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
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


def answers(
    given: argparse.Namespace, out: Path, folder: ImageFolder, models: Mapping[str, DebuggedModel]
) -> dict[str, Lines]:
    """Answers of all models on all images, those on record as they are.

    Raises:
        ArgumentError: other images or weights are on record.
    """
    found: dict[str, Lines] = {}
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
