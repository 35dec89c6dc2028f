"""Find a classifier's errors on a labelled folder, and the segments that drove them.

imagexplain debug find photos/val results --model vit
imagexplain debug find photos/val results --model vit --masks masks/val
imagexplain debug find photos/val results --model vit --served --segments tensormask
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from debugging.arguments import add_model, examiner_of, model_of, segmentation_of, settings_of
from debugging.finding import Finder, report
from debugging.images import labelled_folder
from debugging.results import Record, read_json, same_settings
from imagexplain.progress import say


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="images by class, <folder>/<class>/<image>")
    made.add_argument("results", type=Path, help="folder of results, made if need be")
    add_model(made)
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    folder = labelled_folder(given.folder)
    model, segmentation = model_of(given), segmentation_of(given)
    same_settings(
        given.results / "find.json", settings_of(given, folder=str(given.folder.resolve()), named=segmentation.named)
    )
    record = Record(given.results / "images.jsonl")
    Finder(model, examiner_of(given, model, segmentation), folder, given.results).run(record)
    say("\n".join(report(read_json(given.results / "errors.json", "find"))))
    say(f"{given.results / 'segments.csv'}: a row for each segment; next: imagexplain debug concepts {given.results}")
    return 0
