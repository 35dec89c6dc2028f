"""Choose images of a pool that teach each class otherwise, or write prompts for a text-to-image model.

imagexplain debug select results photos/pool --strategy concept -k 60
imagexplain debug select results photos/pool --strategy active --copy-to chosen
imagexplain debug select results --strategy prompts

random      any images
similarity  nearest to the mean feature of the class's errors
active      half entropy, half squared distance to that mean, both scaled to 0 … 1 within the class
concept     images whose driving segment falls into a kept concept, those first whose rival class it helps the most
loss        highest loss under the folder's label
prompts     no images, but texts: the class alone, and the class with each kept concept
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from debugging.arguments import model_of, segmentation_of, settings_of
from debugging.concept_files import feature_of, read_concepts
from debugging.images import ImageFolder, any_folder
from debugging.model import DebuggedModel
from debugging.pool import Pool, classes_of
from debugging.prompts import prompts
from debugging.results import Record, read_json, same_settings, write_csv, write_text
from debugging.selection import STRATEGIES, Vector, active_scores, best, random_scores, similarity_scores
from imagexplain.cli.connection import add_arguments
from imagexplain.errors import ArgumentError
from imagexplain.progress import say

PROMPTS = "prompts"
DEFAULT_COUNT = 60
COLUMNS = ("class", "rank", "image", "strategy", "score", "entropy", "distance", "loss", "concept")
OF_FIND = ("model", "segments", "n_segments", "baseline", "steps")
"""Settings that are those of ``find``."""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ClassPool:
    """The pool images of one class, with what is known of them.

    Attributes:
        name: Name of the class.
        images: Names (N,) of the images.
        scored: Record of each image.
        error_mean: Mean feature (K,) of the class's errors; None where it has none.
    """

    name: str
    images: Sequence[str]
    scored: Mapping[str, Mapping[str, Any]]
    error_mean: Vector | None

    def column(self, field: str) -> Vector:
        """A number (N,), or a feature (N, K), of each image."""
        return np.array([self.scored[image][field] for image in self.images], dtype=np.float64)


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of results of find, for `concept` and `prompts` of concepts")
    parser.add_argument("pool", type=Path, nargs="?", help="images, in class folders or without")
    parser.add_argument("--strategy", choices=(*STRATEGIES, PROMPTS), required=True)
    parser.add_argument(
        "-k", "--count", type=int, default=DEFAULT_COUNT, help=f"images of each class (default: {DEFAULT_COUNT})"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of random choices (default: 0)")
    parser.add_argument("--fill", action="store_true", help="fill up with random images where `concept` finds too few")
    parser.add_argument("--copy-to", type=Path, help="folder to copy the images to, <folder>/<class>/<image>")
    parser.add_argument("--masks", type=Path, help="label maps of the pool, where find had some")
    add_arguments(parser)
    given = parser.parse_args(arguments)
    if given.strategy == PROMPTS:
        return _write_prompts(given.results)
    if given.pool is None:
        raise ArgumentError("pool", f"wanted a folder of images for {given.strategy}, got none")
    if given.count < 1:
        raise ArgumentError("count", f"wanted at least 1, got {given.count}")
    rows = choose(given)
    file = given.results / "selection" / f"{given.strategy}.csv"
    write_csv(file, rows, COLUMNS)
    if given.copy_to is not None:
        copy(rows, any_folder(given.pool), given.copy_to)
    say(f"{file}: {len(rows)} images")
    return 0


def choose(given: argparse.Namespace) -> list[Row]:
    """The rows of the chosen images, by class and rank.

    Raises:
        ArgumentError: a strategy that lacks what it needs.
    """
    folder, found = any_folder(given.pool), read_json(given.results / "errors.json", "find")
    if given.strategy == "loss" and not folder.classes:
        raise ArgumentError("pool", "wanted class folders, by whose labels the loss is, got images without")
    if given.strategy == "random" and folder.classes:  # which needs no model
        scored: Mapping[str, Mapping[str, Any]] = {name: {} for name in folder.names}
        classes = classes_of(folder, scored, ())
        drivers: Mapping[str, Mapping[str, Any]] = {}
    else:
        scored, drivers, model = looked_at(given, folder)
        classes = classes_of(folder, scored, model.labels)
        skipped = [name for name in folder.names if "skipped" in scored[name]]
        if skipped:
            say(f"{len(skipped)} of the pool skipped, the first {skipped[0]}: {scored[skipped[0]]['skipped']}")
    rank = strategy_of(given, drivers)
    rows = []
    for name, images in classes.items():
        mean = found["classes"].get(name, {}).get("error_mean")
        pool = ClassPool(name, images, scored, None if mean is None else feature_of(mean))
        chosen = ranked(pool, *rank(pool), given)
        if len(chosen) < given.count:
            reason = "of the class in the pool" if len(images) < given.count else f"by {given.strategy}"
            say(f"{name}: {len(chosen)} of the {given.count} wanted {reason}")
        rows += chosen
    return rows


def looked_at(
    given: argparse.Namespace, folder: ImageFolder
) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Mapping[str, Any]], DebuggedModel]:
    """Records of the pool, once all of its images have been looked at by the model of ``find``.

    Raises:
        ArgumentError: other settings than those on record, or no label maps where ``find`` had some.
    """
    before = read_json(given.results / "find.json", "find")
    for name in OF_FIND:
        setattr(given, name, before[name])
    given.served = False
    model = model_of(given)
    pool = Pool(model, folder)
    where = {"model": before["model"], "pool": str(given.pool.resolve())}
    same_settings(given.results / "pool_scores.json", where)
    scores, drivers = (Record(given.results / f"pool_{kind}.jsonl") for kind in ("scores", "drivers"))
    pool.score(scores)
    if given.strategy == "concept":
        if before["masks"] is not None and given.masks is None:
            raise ArgumentError("masks", "wanted label maps of the pool, as find had of its images, got none")
        segments = segmentation_of(given)
        same_settings(given.results / "pool_drivers.json", settings_of(given, **where))
        pool.find_drivers(drivers, scores.lines, segments)
    return scores.lines, drivers.lines, model


Ranking = tuple[Vector, dict[str, Vector], list[str]]
"""Scores (N,) of a class's images, further columns (N,) by name, and the name of each image's concept."""


def strategy_of(given: argparse.Namespace, drivers: Mapping[str, Mapping[str, Any]]) -> Callable[[ClassPool], Ranking]:
    """The function that scores the images of a class; an image without a score is not chosen."""
    if given.strategy == "concept":
        concepts = read_concepts(given.results)

        def by_concept(pool: ClassPool) -> Ranking:
            scores, names = np.full(len(pool.images), np.nan), []
            for index, image in enumerate(pool.images):
                driven = drivers[image]
                concept = concepts.concept_of(pool.name, driven["label"], feature_of(driven["feature"]))
                names.append("" if concept is None else concept.name)
                if concept is not None:
                    scores[index] = driven["margin_drop"]
            return scores, {}, names

        return by_concept
    return {"random": _random(given.seed), "similarity": _similarity, "active": _active, "loss": _loss}[given.strategy]


def ranked(
    pool: ClassPool, scores: Vector, columns: Mapping[str, Vector], concepts: Sequence[str], given: argparse.Namespace
) -> list[Row]:
    """The rows of a class's best images, filled up by random others if that is asked for."""
    chosen = [(int(index), given.strategy) for index in best(scores, given.count)]
    if given.fill:
        others = random_scores(len(pool.images), given.seed, pool.name)
        others[[index for index, _ in chosen]] = np.nan
        chosen += [(int(index), "fill") for index in best(others, given.count - len(chosen))]
    return [
        {
            "class": pool.name,
            "rank": rank,
            "image": pool.images[index],
            "strategy": strategy,
            "score": float(scores[index]) if np.isfinite(scores[index]) else "",
            "concept": concepts[index] if concepts else "",
        }
        | {name: float(values[index]) for name, values in columns.items()}
        for rank, (index, strategy) in enumerate(chosen, 1)
    ]


def copy(rows: Sequence[Row], folder: ImageFolder, target: Path) -> None:
    """Copy the chosen images, <target>/<class>/<image>; those that are there stay.

    Raises:
        ArgumentError: a target with other images, which would count as chosen ones.
    """
    wanted = {target / row["class"] / Path(row["image"]).name: folder.file(row["image"]) for row in rows}
    others = [file for file in target.glob("*/*") if file not in wanted]
    if others:
        raise ArgumentError("copy-to", f"wanted a folder without other images, got {others[0]}")
    for file, source in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        shutil.copyfile(source, partial)
        partial.replace(file)


def _random(seed: int) -> Callable[[ClassPool], Ranking]:
    return lambda pool: (random_scores(len(pool.images), seed, pool.name), {}, [])


def _similarity(pool: ClassPool) -> Ranking:
    if pool.error_mean is None:
        return np.full(len(pool.images), np.nan), {}, []
    scores = similarity_scores(pool.column("feature"), pool.error_mean)
    return scores, {"distance": -scores}, []


def _active(pool: ClassPool) -> Ranking:
    if pool.error_mean is None:
        return np.full(len(pool.images), np.nan), {}, []
    found = active_scores(pool.column("entropy"), pool.column("feature"), pool.error_mean)
    return found.score, {"entropy": found.entropy, "distance": found.distance}, []


def _loss(pool: ClassPool) -> Ranking:
    losses = pool.column("loss")
    return losses, {"loss": losses}, []


def _write_prompts(results: Path) -> int:
    concepts = read_concepts(results)
    lines = prompts({name: [one.name for one in concepts.kept(name)] for name in concepts.found})
    file = results / "prompts.txt"
    write_text(file, "\n".join(lines) + "\n")
    say(f"{file}: {len(lines)} prompts")
    return 0
