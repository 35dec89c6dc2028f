"""Debug sets: images that a model is fine-tuned on beside its training images, as many of each class in every set.

A set is a selection, ``selection/<strategy>.csv`` in a folder of results, or any folder of images by class. The control
set ``none`` has training images once more, so that all runs have the same number of images, by class, and of updates.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagexplain.errors import ArgumentError, listed
from training.finetuning.image_folder import Listing, Photo, list_folder
from training.finetuning.randomness import shuffled

NONE = "none"
"""Name of the run without a debug set."""

ORIGINAL = "original"
"""Name of the model before all of them."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class DebugSet:
    """Images by class, those that are taken first in front.

    Attributes:
        name: Name of its run.
        photos: Images of each class that has any.
    """

    name: str
    photos: Mapping[str, tuple[Photo, ...]]

    def count(self, class_name: str) -> int:
        """Number of images of a class."""
        return len(self.photos.get(class_name, ()))

    def without(self, files: Mapping[Path, str]) -> DebugSet:
        """The set without some files."""
        return DebugSet(
            self.name,
            {name: tuple(one for one in photos if one.file not in files) for name, photos in self.photos.items()},
        )

    def first(self, counts: Mapping[str, int]) -> tuple[Photo, ...]:
        """The first images of each class, so many."""
        return tuple(photo for name, count in counts.items() for photo in self.photos.get(name, ())[:count])


def read_set(given: str, results: Path, pool: Path | None, classes: Sequence[str], seed: int) -> DebugSet:
    """The debug set that a word on the command line names.

    Args:
        given: Strategy of a selection, or a folder of images by class, which may lack classes.
        results: Folder of results.
        pool: Folder that a selection's images lie in.
        classes: Names of the model's classes, by label.
        seed: Seed of the order of a folder's images; a selection has its own.

    Raises:
        ArgumentError: neither of both, a name that is taken, or images that are not there.
    """
    selection = results / "selection" / f"{given}.csv"
    folder = Path(given)
    if selection.is_file():
        if pool is None:
            raise ArgumentError("pool", f"wanted the folder that the images of {selection} lie in, got none")
        found = _selected(selection, pool, classes)
    elif folder.is_dir():
        found = _shuffled(list_folder(folder, classes, some=True), seed)
    else:
        known = sorted(path.stem for path in (results / "selection").glob("*.csv"))
        there = listed(known) or "there is none"
        raise ArgumentError("sets", f"wanted a folder, or a selection ({there}), got {given!r}")
    name = given if selection.is_file() else folder.resolve().name
    if not NAME.fullmatch(name) or name in (NONE, ORIGINAL):
        wanted = f"wanted a set whose name is of letters, digits, _, . and -, and not {NONE} or {ORIGINAL}"
        raise ArgumentError("sets", f"{wanted}, got {name!r}")
    return DebugSet(name, found)


def equal_counts(sets: Sequence[DebugSet], classes: Sequence[str], most: int | None = None) -> dict[str, int]:
    """Number of images of each class that every set has, at most so many.

    Args:
        sets: Sets, at least one.
        classes: Names of the classes.
        most: Largest number; None for no limit.
    """
    smallest = {name: min(each.count(name) for each in sets) for name in classes}
    return {name: count if most is None else min(count, most) for name, count in smallest.items()}


def shortages(
    sets: Sequence[DebugSet], counts: Mapping[str, int], most: int | None = None
) -> list[tuple[str, str, int, int]]:
    """Sets with fewer images of a class than wanted: name, class, the number that they have, and that wanted.

    Args:
        sets: The sets.
        counts: Number of images that are taken, by class.
        most: Number that is wanted; None for what the largest set has.
    """
    found = []
    for class_name in counts:
        wanted = max(each.count(class_name) for each in sets) if most is None else most
        found += [
            (each.name, class_name, each.count(class_name), wanted) for each in sets if each.count(class_name) < wanted
        ]
    return found


def repeated(train: Listing, counts: Mapping[str, int], seed: int) -> tuple[Photo, ...]:
    """Training images once more, so many of each class, in whose random order none comes twice before all came once."""
    found: list[Photo] = []
    for name, count in counts.items():
        own = [photo for photo in train.photos if train.classes[photo.label] == name]
        passes = [own[index] for turn in range(-(-count // len(own))) for index in _order(len(own), seed, name, turn)]
        found += passes[:count]
    return tuple(found)


def _selected(file: Path, pool: Path, classes: Sequence[str]) -> dict[str, tuple[Photo, ...]]:
    """Images of a selection's rows by class, by their rank."""
    labels = {name: label for label, name in enumerate(classes)}
    found: dict[str, list[tuple[int, Photo]]] = {}
    with file.open(encoding="utf-8", newline="") as text:
        rows = csv.DictReader(text)
        if missing := {"class", "rank", "image"} - set(rows.fieldnames or ()):
            wanted = "wanted columns class, rank and image"
            raise ArgumentError("sets", f"{file}: {wanted}, got no {listed(sorted(missing))}")
        for row in rows:
            name, place = row["class"], f"{file}: line {rows.line_num}"
            if name not in labels:
                raise ArgumentError("sets", f"{place}: wanted a class of the model ({listed(classes)}), got {name!r}")
            if not row["rank"].isdecimal():
                raise ArgumentError("sets", f"{place}: wanted a whole number as rank, got {row['rank']!r}")
            image = pool / row["image"]
            if not image.is_file():
                raise ArgumentError("pool", f"{place}: wanted {image}, which is not there")
            found.setdefault(name, []).append((int(row["rank"]), Photo(image, labels[name], row["image"])))
    return {name: tuple(photo for _, photo in sorted(ranked, key=lambda one: one[0])) for name, ranked in found.items()}


def _shuffled(listing: Listing, seed: int) -> dict[str, tuple[Photo, ...]]:
    found = {}
    for label, name in enumerate(listing.classes):
        own = [photo for photo in listing.photos if photo.label == label]
        found[name] = tuple(own[index] for index in _order(len(own), seed, name, 0))
    return {name: photos for name, photos in found.items() if photos}


def _order(count: int, seed: int, name: str, turn: int) -> list[int]:
    order: list[int] = shuffled(count, seed, "debug set", name, turn).tolist()
    return order
