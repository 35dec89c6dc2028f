"""Fine-tune a debugged model on its training images with each debug set, and once without any.

imagexplain debug train results photos --sets concept random --pool photos/pool
imagexplain debug train results photos --sets chosen --model store/places.mar --epochs 10

The folder holds train/<class>/… and val/<class>/…, with every class of the model. A set is a strategy of `select`, or a
folder of images by class; of each set as many images of every class are taken, and of the control, `none`, as many
training images once more, so that all runs make the same number of updates. RESULTS/train/<set>/ has the run, and
archive.yaml, by which its best epoch is built as the next version of the model's archive.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from debugging.arguments import SPECS
from debugging.debug_sets import NONE, DebugSet, equal_counts, read_set, repeated, shortages
from debugging.model import DebuggedModel, open_model
from debugging.recipe import add_recipe, augmentation_of, config_of, recorded
from debugging.results import read_json, same_settings, write_csv
from debugging.trainable import SPEC, next_version, spec_of, trainable_network, write_version
from imagexplain.archive.spec import ClassifierSpec, load
from imagexplain.errors import ArgumentError, listed
from imagexplain.progress import say
from training.finetuning.image_folder import ImageFolder, Listing, Photo, find_faults, list_folder, refuse
from training.finetuning.labelled_images import digest
from training.finetuning.pipeline import Pipeline
from training.finetuning.processes import local_device
from training.finetuning.randomness import private_randomness, seed_all
from training.finetuning.run_folder import NonFiniteError
from training.finetuning.trainer import FinetuneResult, finetune

FOLDER = "train"
"""Folder of the runs within the folder of results."""

SETTINGS = "train.json"
ADDED = "added.csv"
CHECKED = "checked.json"
COLUMNS = ("class", "image", "file")
"""Columns of ``added.csv``."""


@dataclass(frozen=True, eq=False)
class Images:
    """All images of the runs, each of which can be read.

    Attributes:
        train: Images to train on.
        val: Images that choose the best epoch.
        sets: Debug sets.
    """

    train: Listing
    val: Listing
    sets: tuple[DebugSet, ...]


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, help="folder of results")
    made.add_argument("photos", type=Path, help="folder with train/<class>/ and val/<class>/")
    made.add_argument("--sets", nargs="+", required=True, metavar="SET", help="strategies, or folders by class")
    made.add_argument("--pool", type=Path, help="folder of the selections' images (default: that of select)")
    made.add_argument("--model", help="name, spec file or archive to begin with (default: that of find)")
    made.add_argument("-k", "--count", type=int, help="images of each class, at most (default: what every set has)")
    made.add_argument("--skip-faulty", action="store_true", help="leave out, and name, images that cannot be read")
    made.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(default: cores)")
    made.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="(default: at ends of epochs)")
    add_recipe(made)
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    if given.count is not None and given.count < 1:
        raise ArgumentError("count", f"wanted at least 1, got {given.count}")
    config_of(given)  # whose errors come before the work
    name = model_name(given)
    model, spec = open_model(name, SPECS), spec_of(name, SPECS)
    images = read_images(given, model)
    counts = counts_of(given, images)
    same_settings(
        given.results / FOLDER / SETTINGS,
        recorded(given)
        | {"model": name, "weights": weights_of(model), "photos": str(given.photos.resolve()), "counts": counts},
    )
    added = {NONE: repeated(images.train, counts, given.seed)}
    added |= {each.name: each.first(counts) for each in images.sets}
    try:
        for run, photos in added.items():
            result, file = train(given, model, spec, images, run, photos)
            best = result.best_epoch
            say(f"{run}: accuracy {best.accuracy:.2%} on val in epoch {best.epoch}; {file}")
    except NonFiniteError as error:
        print(f"error: {run}: {error}", file=sys.stderr)
        return 1
    say(f"next: imagexplain debug report {given.results} <folder of images by class that none of this has seen>")
    return 0


def model_name(given: argparse.Namespace) -> str:
    """The model that is named, or that of ``find``; a file by its whole path."""
    name = given.model or read_json(given.results / "find.json", "find")["model"]
    return str(Path(name).resolve()) if name.endswith((".mar", ".yaml", ".yml")) else name


def read_images(given: argparse.Namespace, model: DebuggedModel) -> Images:
    """The images that the arguments name, without those that cannot be read.

    Raises:
        ArgumentError: images that are none, classes that are not the model's, or images to train on that are in `val`.
    """
    classes = model.labels
    for part in ("train", "val"):
        _check_classes(given.photos / part, classes)
    train, val = (list_folder(given.photos / part, classes) for part in ("train", "val"))
    pool = given.pool or _pool_of(given.results)
    sets = [read_set(each, given.results, pool, classes, given.seed) for each in given.sets]
    names = [each.name for each in sets]
    if len(set(names)) < len(names):
        raise ArgumentError("sets", f"wanted sets of different names, got {listed(names)}")
    candidates = [Listing(train.root, classes, tuple(_all(each))) for each in sets]
    faults = find_faults((train, val, *candidates), given.results / FOLDER / CHECKED, workers=given.workers)
    if not given.skip_faulty:
        refuse(faults)
    for file, reason in faults.items():
        say(f"left out: {file}: {reason}")
    held = {photo.file.resolve() for photo in val.photos}
    for name, listing in zip(("train", *names), (train, *candidates), strict=True):
        if both := held & {photo.file.resolve() for photo in listing.photos}:
            wanted = f"wanted other images than those of {name}"
            raise ArgumentError("val", f"{wanted}, got {len(both)}, such as {min(both)}")
    return Images(train.without(faults), val.without(faults), tuple(each.without(faults) for each in sets))


def counts_of(given: argparse.Namespace, images: Images) -> dict[str, int]:
    """Number of images by class that are taken of every set: that of the runs before, or what all sets have.

    Raises:
        ArgumentError: sets without a class in common, or one with fewer images than were taken before.
    """
    classes = images.train.classes
    file = given.results / FOLDER / SETTINGS
    if file.exists() and given.count is None:
        before: dict[str, int] = read_json(file, FOLDER)["counts"]
        for each in images.sets:
            lacking = [name for name in classes if each.count(name) < before.get(name, 0)]
            if lacking:
                said = f"wanted {before[lacking[0]]} images of {lacking[0]}, as in the runs before"
                raise ArgumentError("sets", f"{said}, got {each.count(lacking[0])} in {each.name}")
        return before
    counts = equal_counts(images.sets, classes, given.count)
    for name, class_name, own, wanted in shortages(images.sets, counts, given.count):
        taken = f"{counts[class_name]} are taken of every set"
        say(f"warning: {name} has {own} of {wanted} images of {class_name}: {taken}")
    if not any(counts.values()):
        raise ArgumentError("sets", "wanted sets with images of the same classes, got none")
    say(f"{sum(counts.values())} images of each set beside {len(images.train.photos)} to train on")
    return counts


def train(
    given: argparse.Namespace,
    model: DebuggedModel,
    spec: ClassifierSpec,
    images: Images,
    run: str,
    added: Sequence[Photo],
) -> tuple[FinetuneResult, Path]:
    """Fine-tune with one set, or go on with it; returns the outcome, and the spec of the new version.

    Raises:
        ArgumentError: too few images for an update, or a folder with another run.
        NonFiniteError: a loss that is no finite number.
    """
    config, out = config_of(given), given.results / FOLDER / run
    say(f"{run}: {len(images.train.photos)} + {len(added)} images")
    twice = {photo.file.resolve() for photo in added} & {photo.file.resolve() for photo in images.train.photos}
    if twice and run != NONE:
        say(f"warning: {len(twice)} images of {run} are among those to train on already")
    with private_randomness():
        seed_all(config.seed, "start")
        network: nn.Module = trainable_network(model, spec, given.drop_path).to(local_device())
    together = images.train.joined([Listing(images.train.root, images.train.classes, tuple(added))])
    preprocess = model.served.preprocess
    result = finetune(
        network,
        ImageFolder(together, Pipeline(preprocess, augmentation_of(given)), given.workers),
        ImageFolder(images.val, Pipeline(preprocess), given.workers),
        config,
        out,
        save_every=given.save_every,
    )
    rows = [{"class": model.labels[one.label], "image": one.name, "file": str(one.file.resolve())} for one in added]
    write_csv(out / ADDED, rows, COLUMNS)
    version = version_of(out, spec.name, given.results)
    told = "without a debug set" if run == NONE else f"with {len(added)} images of {run}"
    return result, write_version(out, spec, network, version, f"{spec.address}, fine-tuned {told}")


def version_of(out: Path, name: str, results: Path) -> str:
    """Version of a run: that which it has, or else the next one of the archive's specs and the other runs."""
    if (out / SPEC).exists():
        return load(out / SPEC).version
    return next_version(name, [*SPECS.glob("*.yaml"), *(results / FOLDER).glob(f"*/{SPEC}")])


def weights_of(model: DebuggedModel) -> str:
    """Digest of a model's weights, by which they are known again."""
    return digest(model.network.state_dict().items())


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    if not folder.is_dir():
        raise ArgumentError("photos", f"wanted a folder of images by class, got none at {folder}")
    found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    if missing := [name for name in classes if name not in found]:
        wanted = "wanted a folder for every class of the model"
        raise ArgumentError("photos", f"{wanted}, got none for {listed(missing)} in {folder}")


def _pool_of(results: Path) -> Path | None:
    """The pool of ``select``, where that has looked at one."""
    file = results / "pool_scores.json"
    return Path(read_json(file, "select")["pool"]) if file.exists() else None


def _all(found: DebugSet) -> Sequence[Photo]:
    return [photo for photos in found.photos.values() for photo in photos]
