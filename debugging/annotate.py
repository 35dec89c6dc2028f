"""Ask people about the segments that drove errors, and read their answers.

imagexplain debug annotate results
imagexplain debug annotate results --answers answered.json

The first writes tasks.json and annotate.html, a page to open in a browser; it downloads answered.json. The second reads
that, and writes the difficulty of each image and region files for scene graphs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from debugging.annotation import LEAST_RATING, Graphs, difficulties, read_answers, scene_graphs, tasks_of
from debugging.annotation_page import annotation_page
from debugging.results import read_json, write_json, write_text
from imagexplain.errors import ArgumentError
from imagexplain.progress import say
from imagexplain.vision.html_page import plural

MOST_TASKS = 200
"""Number of tasks on a page where nobody says how many."""

REGIONS = "regionfiles"


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, help="folder of results, in which find has written errors.json")
    made.add_argument("--most", type=int, default=MOST_TASKS, help=f"tasks, at most (default: {MOST_TASKS})")
    made.add_argument("--answers", type=Path, help="answered tasks to read")
    made.add_argument(
        "--least-rating", type=float, default=LEAST_RATING, help="rating from which contents are in region files"
    )
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    if given.answers is not None:
        return read(given.results, given.answers, given.least_rating)
    if given.most < 1:
        raise ArgumentError("most", f"wanted at least 1, got {given.most}")
    return ask(given.results, given.most)


def ask(results: Path, most: int) -> int:
    """Write the tasks and their page."""
    errors = read_json(results / "errors.json", "find")["errors"]
    tasks = tasks_of(errors, most)
    whole = sum(segment["rank"] > 0 for entry in errors for segment in entry["segments"])
    if not tasks:
        raise ArgumentError(
            "results", f"wanted errors with responsible segments in {results / 'errors.json'}, got none"
        )
    write_json(results / "tasks.json", tasks)
    write_text(results / "annotate.html", annotation_page(tasks, results))
    some = "" if len(tasks) == whole else f" of {whole}; --most asks for more"
    say(f"{results / 'annotate.html'}: {plural(len(tasks), 'task')}{some}; open it in a browser")
    return 0


def read(results: Path, file: Path, least_rating: float) -> int:
    """Write the difficulties and region files that follow from answers."""
    answers = read_answers(read_json(file, "the page annotate.html"))
    say(
        f"{len(answers.rated)} rated, {answers.blank} without a rating and {answers.unfinished} unfinished were skipped"
    )
    found = difficulties(answers.rated)
    write_json(results / "difficulty.json", found)
    if found:
        hardest = next(reversed(found))
        mean = sum(one["difficulty"] for one in found.values()) / len(found)
        hard = f"hardest {hardest} with {found[hardest]['difficulty']:.3g}"
        say(f"{results / 'difficulty.json'}: {plural(len(found), 'image')}, mean {mean:.3f}, {hard}")
    graphs = scene_graphs(answers.rated, least_rating)
    write_regions(results / REGIONS, graphs)
    for reason, count in graphs.left_out.items():
        say(f"{plural(count, 'answer')} {reason}: in no region file")
    say(f"{results / REGIONS}: {plural(len(graphs.by_image), 'region file')}")
    return 0


def write_regions(folder: Path, graphs: Graphs) -> None:
    """Write a region file for each image, <folder>/<image without its suffix>.json, and remove those of before.

    Raises:
        ArgumentError: an image whose name leads out of the folder, or two of one name.
    """
    files = {}
    for image, graph in graphs.by_image.items():
        name = PurePosixPath(image).with_suffix(".json") if image.strip("./") else PurePosixPath("..")
        if name.is_absolute() or ".." in name.parts or "\\" in image:
            raise ArgumentError("answers", f"wanted the path of an image in its folder, got {image!r}")
        if (file := folder / name) in files:
            raise ArgumentError("answers", f"wanted images that differ in more than their suffix, got {image!r} twice")
        files[file] = {"1": graph.region()}
    for before in set(folder.rglob("*.json")) - files.keys():
        before.unlink()
    for file, content in files.items():
        write_json(file, content)
