"""Folders of labelled photos, ``<folder>/<class>/…``: each file is accounted for before the training begins.

Photos are decoded as the service decodes them (upright, sRGB, transparency over white), so that training and serving
see the same pixels: a palette image becomes RGB like any other. Names that begin with a dot are no photos; every other
file in a class's folder, at any depth, is one, or an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from imagexplain.errors import ArgumentError, RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import decode
from imagexplain.vision.geometry import MAX_ASPECT
from training.finetuning.labelled_images import Batch
from training.finetuning.pipeline import Pipeline
from training.finetuning.randomness import seed_all
from training.finetuning.whole_files import write_text

LISTED = 10
"""Number of files that an error names."""


class Photo(NamedTuple):
    """A labelled photo.

    Attributes:
        file: Its file.
        label: Number of its class.
        name: Path of the file within its folder, ``<class>/…``.
    """

    file: Path
    label: int
    name: str


@dataclass(frozen=True)
class Listing:
    """The photos of a labelled folder, by name, and those of further ones behind them.

    Attributes:
        root: The folder.
        classes: Names of the classes, sorted, as the folders in it are called.
        photos: All photos.
    """

    root: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]

    def without(self, files: Mapping[Path, str]) -> Listing:
        """The listing without some files.

        Raises:
            ArgumentError: no photo of a class is left.
        """
        kept = Listing(self.root, self.classes, tuple(photo for photo in self.photos if photo.file not in files))
        gone = self.count_classes().keys() - kept.count_classes().keys()
        _check_folders(self.root, sorted(gone))
        return kept

    def joined(self, others: Iterable[Listing]) -> Listing:
        """The listing with the photos of others, of the same classes, behind its own."""
        more = tuple(photo for other in others for photo in other.photos)
        return Listing(self.root, self.classes, self.photos + more)

    def count_classes(self) -> Counter[str]:
        """Number of photos by class."""
        return Counter(self.classes[photo.label] for photo in self.photos)


def list_folder(root: Path, classes: Sequence[str] | None = None, *, some: bool = False) -> Listing:
    """List a labelled folder.

    Args:
        root: Folder of the classes' folders.
        classes: Names of the classes that it must have, those of the training images; None for those that it has.
        some: Flag for a folder that may lack classes.

    Raises:
        ArgumentError: no such folder, fewer than two classes, others than those, one without a photo, or a file where
            a class's folder is wanted.
    """
    if not root.is_dir():
        raise ArgumentError(root.name, f"wanted a folder <class>/<photo>, got none at {root}")
    within = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    beside = [str(path) for path in within if not path.is_dir()]
    if beside:
        raise ArgumentError(root.name, f"wanted folders of classes alone, got {_named(beside)}")
    found = tuple(path.name for path in within)
    if classes is None and len(found) < 2:
        raise ArgumentError(root.name, f"wanted at least two classes, got {list(found)} in {root}")
    lacking, more = sorted(set(classes or ()) - set(found)), sorted(set(found) - set(classes or found))
    if more or (lacking and not some):
        given = [f"no {_named(lacking)}"] if lacking else []
        given += [f"{_named(more)} besides"] if more else []
        raise ArgumentError(root.name, f"wanted the classes of the training images, got {', '.join(given)} in {root}")
    files = {name: _files(root / name) for name in found}
    _check_folders(root, [name for name in found if not files[name]])
    labels = {name: label for label, name in enumerate(classes or found)}
    photos = [Photo(file, labels[name], file.relative_to(root).as_posix()) for name in found for file in files[name]]
    return Listing(root, tuple(labels), tuple(photos))


def find_faults(
    listings: Sequence[Listing], memory: Path, *, workers: int = 1, progress: bool = True
) -> dict[Path, str]:
    """Decode every photo once; those that cannot be, with the reason.

    Args:
        listings: Folders to check.
        memory: JSON file of what was found before, by path, size and time of change; such files are not read again.
        workers: Number of threads.
        progress: Flag for a progress bar.
    """
    known: dict[str, list[object]] = json.loads(memory.read_text("utf-8")) if memory.is_file() else {}
    files = [photo.file for listing in listings for photo in listing.photos]
    stamps = {file: _stamp(file) for file in files}
    unread = [file for file in files if not stamps[file] or known.get(str(file), [])[:2] != stamps[file]]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        reasons = pool.map(fault, unread)
        shown = tqdm(reasons, total=len(unread), desc="checking photos", unit="photo", disable=not progress)
        read = dict(zip(unread, shown, strict=True))
    found = {file: read[file] if file in read else str(known[str(file)][2]) for file in files}
    if unread:
        content = {str(file): [*stamps[file], found[file]] for file in sorted(found) if stamps[file]}
        write_text(memory, json.dumps(content, indent=0, ensure_ascii=False) + "\n")
    return {file: reason for file, reason in found.items() if reason}


def fault(file: Path) -> str:
    """Reason why a file is no photo to train on; empty for one that is."""
    try:
        height, width = decode(file.read_bytes(), Limits(), file.name).size
    except RequestError as error:
        return error.message
    except OSError as error:
        return str(error)
    if max(height, width) > MAX_ASPECT * min(height, width):
        return f"wanted a photo at most {MAX_ASPECT} times as long as it is wide, got {width} × {height}"
    return ""


def refuse(faults: Mapping[Path, str]) -> None:
    """Raise an error that names files which are no photos, if there are any.

    Raises:
        ArgumentError: names the first of them with their reasons, and how many there are.
    """
    if faults:
        lines = [f"{file}: {reason}" for file, reason in sorted(faults.items())[:LISTED]]
        more = f"\n… ({len(faults)} in all)" if len(faults) > LISTED else ""
        raise ArgumentError("photos", "wanted photos that can be read, got\n" + "\n".join(lines) + more)


@dataclass(frozen=True)
class ImageFolder:
    """Photos in files, decoded and preprocessed when they are asked for.

    Attributes:
        listing: The photos.
        pipeline: Pipeline from a photo to the network's input.
        workers: Number of processes that decode; 0 for this one.
    """

    listing: Listing
    pipeline: Pipeline
    workers: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.listing.classes

    @cached_property
    def labels(self) -> Tensor:
        """Labels (N,) int64."""
        return torch.tensor([photo.label for photo in self.listing.photos], dtype=torch.int64)

    def batches(self, order: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        """Yield decoded batches; an image's augmentation is a function of the seed and its number."""
        photos = _Photos(self.listing.photos, self.pipeline, seed)
        numbers = [each.tolist() for each in order]
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            photos, batch_sampler=numbers, num_workers=self.workers, pin_memory=torch.cuda.is_available()
        )
        batches: Iterator[Batch] = iter(loader)  # the labels as a tensor
        yield from batches

    def fingerprint(self) -> str:
        """Digest of names, labels, file sizes and the pipeline; the folder may move."""
        lines = [f"{photo.name} {photo.label} {photo.file.stat().st_size}" for photo in self.listing.photos]
        return hashlib.sha256("\n".join([repr(self.pipeline), *lines]).encode()).hexdigest()


class _Photos(Dataset[tuple[Tensor, int]]):
    def __init__(self, photos: Sequence[Photo], pipeline: Pipeline, seed: int) -> None:
        self.photos = photos
        self.transform = pipeline.transform()
        self.augmented = pipeline.augmentation is not None
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        file, label, _ = self.photos[number]
        try:
            image = decode(file.read_bytes(), Limits(), file.name).image
            if self.augmented:
                seed_all(self.seed, number)
            return self.transform(image), label
        except (RequestError, OSError) as error:
            raise ValueError(f"{file}: wanted the photo that was there when the training began: {error}") from error

    def __len__(self) -> int:
        return len(self.photos)


def _stamp(file: Path) -> list[int]:
    """Size and time of change of a file, by which it is known again; none of a link that leads nowhere."""
    try:
        state = file.stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _check_folders(root: Path, empty: Sequence[str]) -> None:
    if empty:
        folders = [str(root / name) for name in empty]
        raise ArgumentError(root.name, f"wanted a photo in every class's folder, got none in {_named(folders)}")


def _files(folder: Path) -> list[Path]:
    """Files at any depth, through links to folders too; a link that leads nowhere is one that cannot be read."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
