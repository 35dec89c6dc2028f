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
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from debugging.arguments import model_of, segmentation_of, settings_of
from debugging.choice import COLUMNS, ChoiceSettings, ClassPool, Records, Row, choose
from debugging.concept_files import feature_of, read_concepts
from debugging.images import ImageFolder, any_folder
from debugging.pool import Pool, classes_of
from debugging.prompts import prompts
from debugging.results import Record, read_json, same_settings, write_csv, write_text
from debugging.selection import STRATEGIES
from imagexplain.cli.connection import add_arguments
from imagexplain.errors import ArgumentError
from imagexplain.progress import say
from training.finetuning.whole_files import replace

PROMPTS = "prompts"
DEFAULT_COUNT = 60
OF_FIND = ("model", "segments", "n_segments", "baseline", "steps")
"""Settings that are those of ``find``."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, help="folder of results of find, for `concept` and `prompts` of concepts")
    made.add_argument("pool", type=Path, nargs="?", help="images, in class folders or without")
    made.add_argument("--strategy", choices=(*STRATEGIES, PROMPTS), required=True)
    made.add_argument(
        "-k", "--count", type=int, default=DEFAULT_COUNT, help=f"images of each class (default: {DEFAULT_COUNT})"
    )
    made.add_argument("--seed", type=int, default=0, help="seed of random choices (default: 0)")
    made.add_argument("--fill", action="store_true", help="fill up with random images where `concept` finds too few")
    made.add_argument("--copy-to", type=Path, help="folder to copy the images to, <folder>/<class>/<image>")
    made.add_argument("--masks", type=Path, help="label maps of the pool, where find had some")
    add_arguments(made)
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    if given.strategy == PROMPTS:
        return _write_prompts(given.results)
    if given.pool is None:
        raise ArgumentError("pool", f"wanted a folder of images for {given.strategy}, got none")
    if given.count < 1:
        raise ArgumentError("count", f"wanted at least 1, got {given.count}")
    folder = any_folder(given.pool)
    if given.strategy == "loss" and not folder.classes:
        raise ArgumentError("pool", "wanted class folders, by whose labels the loss is, got images without")
    rows = choose_all(given, folder, ChoiceSettings(given.strategy, given.count, given.seed, given.fill))
    file = given.results / "selection" / f"{given.strategy}.csv"
    write_csv(file, rows, COLUMNS)
    if given.copy_to is not None:
        copy(rows, folder, given.copy_to)
    say(f"{file}: {len(rows)} images")
    return 0


def choose_all(given: argparse.Namespace, folder: ImageFolder, settings: ChoiceSettings) -> list[Row]:
    """The rows of the chosen images, by class and rank, once the model of ``find`` has looked at all of the pool.

    Raises:
        ArgumentError: a file of an earlier step is missing, other settings are on record, or there are no label maps
            where ``find`` had some.
    """
    found = read_json(given.results / "errors.json", "find")
    concepts = read_concepts(given.results) if settings.strategy == "concept" else None
    scored, drivers, labels = looked_at(given, folder, drivers=concepts is not None)
    skipped = [name for name in folder.names if "skipped" in scored[name]]
    if skipped:
        say(f"{len(skipped)} of the pool skipped, the first {skipped[0]}: {scored[skipped[0]]['skipped']}")
    rows = []
    for name, images in classes_of(folder, scored, labels).items():
        mean = found["classes"].get(name, {}).get("error_mean")
        pool = ClassPool(name, images, scored, drivers, None if mean is None else feature_of(mean))
        chosen = choose(pool, settings, concepts)
        if len(chosen) < settings.count:
            reason = "of the class in the pool" if len(images) < settings.count else f"by {settings.strategy}"
            say(f"{name}: {len(chosen)} of the {settings.count} wanted {reason}")
        rows += chosen
    return rows


def looked_at(
    given: argparse.Namespace, folder: ImageFolder, *, drivers: bool
) -> tuple[Records, Records, Sequence[str]]:
    """Records of the pool's scores and, if asked for, of its driving segments, and the labels of the model.

    Raises:
        ArgumentError: other settings than those on record, or no label maps where ``find`` had some.
    """
    before = read_json(given.results / "find.json", "find")
    for name in OF_FIND:
        setattr(given, name, before[name])
    given.served = False
    if drivers and before["masks"] is not None and given.masks is None:
        raise ArgumentError("masks", "wanted label maps of the pool, as find had of its images, got none")
    model = model_of(given)
    pool = Pool(model, folder)
    where = {"model": before["model"], "pool": str(given.pool.resolve())}
    same_settings(given.results / "pool_scores.json", where)
    scores, driving = (Record(given.results / f"pool_{kind}.jsonl") for kind in ("scores", "drivers"))
    pool.score(scores)
    if drivers:
        segments = segmentation_of(given)
        same_settings(given.results / "pool_drivers.json", settings_of(given, **where))
        pool.find_drivers(driving, scores.lines, segments)
    return scores.lines, driving.lines, model.labels


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
        replace(file, partial(shutil.copyfile, source))


def _write_prompts(results: Path) -> int:
    concepts = read_concepts(results)
    lines = prompts({name: [one.name for one in concepts.kept(name)] for name in concepts.found})
    file = results / "prompts.txt"
    write_text(file, "\n".join(lines) + "\n")
    say(f"{file}: {len(lines)} prompts")
    return 0
