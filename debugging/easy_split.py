"""Write a split of a captioner's data without the images that people found hard.

imagexplain debug split tasks.json data --split val_sub --threshold 0.5 --name val_sub_opt

tasks.json holds answered tasks; an image's difficulty is Σ ratings / (5 n), near 0 for a hard one. Images from the
threshold on are kept, in the same files as the split they come from: weights and code are the same for both.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from debugging.annotation import difficulties, image_of, read_answers
from debugging.results import read_json
from imagexplain.errors import ArgumentError
from imagexplain.progress import say
from imagexplain.vision.html_page import plural
from training.captioning.caption_folder import CaptionFolder
from training.captioning.splits import read_split

THRESHOLD = 0.5
"""Difficulty from which an image is kept, where nobody says: the original names none."""

OPTIMISED = "_opt"
"""End of the name of a split without hard images, after that of the whole."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("tasks", type=Path, help="answered tasks")
    made.add_argument("data", type=Path, help="folder with annotation/ and features/")
    made.add_argument("--split", required=True, help="split to take images from, such as val_sub")
    made.add_argument("--name", help=f"name of the new one (default: the split's with {OPTIMISED})")
    made.add_argument("--threshold", type=float, default=THRESHOLD, help="(default: %(default)s)")
    made.add_argument("--keep-unrated", action="store_true", help="keep images that nobody rated")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    name = given.name or f"{given.split}{OPTIMISED}"
    folder = CaptionFolder(given.data)
    images = read_split(folder.annotation, given.split).images
    answers = read_answers(read_json(given.tasks, "whoever asked"))
    values = {image: float(one["difficulty"]) for image, one in difficulties(answers.rated).items()}
    rated = difficulty_of(images, values)
    kept = easy(images, rated, given.threshold, keep_unrated=given.keep_unrated)
    split = folder.copy_split(given.split, name, kept)
    hard = sum(value < given.threshold for value in rated.values())
    unrated = "kept" if given.keep_unrated else "left out"
    counts = f"{hard} below {given.threshold:g} left out, {len(images) - len(rated)} without a rating {unrated}"
    say(f"{plural(len(images), 'image')}: {counts}")
    say(f"{name}: {plural(len(split.images), 'image')}, {plural(len(split.regions), 'caption')}")
    return 0


def difficulty_of(images: Sequence[str], values: Mapping[str, float]) -> dict[str, float]:
    """Difficulty of those images that have one.

    Args:
        images: Names of images in a split, such as ``val2014/COCO_val2014_000000353409``.
        values: Difficulty by image: the whole name, its last part, or a COCO photo's number.

    Example:
        >>> from debugging.easy_split import difficulty_of
        >>> difficulty_of(["val2014/COCO_val2014_000000353409", "scene_7"], {"353409": 0.86})
        {'val2014/COCO_val2014_000000353409': 0.86}
    """
    bare = {PurePosixPath(image).with_suffix("").as_posix(): value for image, value in values.items() if image}
    found = {}
    for image in images:
        last = PurePosixPath(image).name
        for key in (image, last, image_of({"filename": last})):
            if key in bare:
                found[image] = bare[key]
                break
    return found


def easy(
    images: Sequence[str], values: Mapping[str, float], threshold: float, *, keep_unrated: bool = False
) -> list[str]:
    """The images from a difficulty on.

    Raises:
        ArgumentError: a threshold that is no difficulty.

    Example:
        >>> from debugging.easy_split import easy
        >>> easy(["a", "b", "c"], {"a": 0.4, "b": 0.5}, 0.5)
        ['b']
    """
    if not 0 <= threshold <= 1:
        raise ArgumentError("threshold", f"wanted 0 … 1, got {threshold}")
    return [image for image in images if (values[image] >= threshold if image in values else keep_unrated)]
