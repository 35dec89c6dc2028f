"""Group what drove each class's errors into concepts, on a page to read and in a file to edit.

imagexplain debug concepts results
imagexplain debug concepts results --clusters 3 --seed 1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from debugging.concept import ClassConcepts, concepts_of
from debugging.concept_files import EDITED, FOUND, PAGE, edited_text, found_content
from debugging.concept_page import concept_page
from debugging.results import read_json, rounded, write_json, write_text
from imagexplain.errors import ArgumentError
from imagexplain.progress import say
from imagexplain.vision.html_page import plural


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, help="folder of results, in which find has written errors.json")
    made.add_argument("--clusters", type=int, help="number for each class (default: as many as the features show)")
    made.add_argument("--seed", type=int, default=0, help="seed of the clusters (default: 0)")
    made.add_argument("--overwrite", action="store_true", help="replace other concepts, with what was edited")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    if given.clusters is not None and given.clusters < 1:
        raise ArgumentError("clusters", f"wanted at least 1, got {given.clusters}")
    found, settings = read_json(given.results / "errors.json", "find"), read_json(given.results / "find.json", "find")
    classes = group(found, by_label=settings["named"], seed=given.seed, clusters=given.clusters)
    content = rounded(found_content(classes, {"seed": given.seed, "clusters": given.clusters}))
    write(given.results, content, classes, settings["model"], overwrite=given.overwrite)
    for line in report(content):
        say(line)
    say(f"read {given.results / PAGE}, edit {given.results / EDITED}")
    return 0


def group(found: Any, *, by_label: bool, seed: int, clusters: int | None) -> dict[str, ClassConcepts]:
    """The concepts of each class that has errors, from the content of ``errors.json``."""
    wrong = [name for name, count in found["classes"].items() if count["errors"]]
    return {
        name: concepts_of(
            [entry for entry in found["errors"] if entry["truth"] == name],
            by_label=by_label,
            seed=seed,
            clusters=clusters,
        )
        for name in tqdm(wrong, desc="grouping", unit="class")
    }


def write(
    results: Path, content: dict[str, Any], classes: dict[str, ClassConcepts], model: str, *, overwrite: bool
) -> None:
    """Write the three files; what a person edited stays as long as the concepts are the same.

    Raises:
        ArgumentError: other concepts than those that were edited, and no word to overwrite them.
    """
    same = (results / FOUND).exists() and read_json(results / FOUND, "concepts") == content
    usual = edited_text(content)
    edited = results / EDITED
    if edited.exists() and not same and not overwrite:
        wanted = f"wanted the concepts on which {edited} was written, got others"
        raise ArgumentError("results", f"{wanted}: --overwrite replaces it, with all that was edited")
    write_json(results / FOUND, content)
    write_text(results / PAGE, concept_page(classes, results, model, EDITED))
    if not (edited.exists() and same):
        write_text(edited, usual)


def report(content: dict[str, Any]) -> list[str]:
    """Lines for a person: each class's concepts with their share of score and area."""
    lines = []
    for name, found in content["classes"].items():
        stability = found["stability"]
        agreement = "" if stability is None else f", agreement over five seeds {stability:.2f}"
        lines.append(f"{name}: {plural(found['errors'], 'error')}{agreement}")
        lines += [
            f"  {concept['name']}: {concept['carried_share']:.0%} of the score with {concept['area_share']:.0%} of the "
            f"area, in {plural(concept['errors'], 'error')}"
            for concept in found["concepts"]
        ]
    return lines
