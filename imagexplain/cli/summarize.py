"""Summarize a job's table: what the model looks at over a data set, as an HTML page and a CSV table.

imagexplain batch --input photos --model resnet --segments swin --maps --output results
imagexplain summarize results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from imagexplain.cluster import summary_page, table
from imagexplain.cluster.job import SETTINGS, TABLE
from imagexplain.cluster.summary import summarize
from imagexplain.progress import say

PAGE, CSV = "summary.html", "summary.csv"


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="output of imagexplain batch --input")
    made.add_argument("--title", help="heading of the page (default: the folder's name)")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    folder: Path = given.folder
    try:
        if not (folder / SETTINGS).is_file():
            raise ValueError(f"{folder}: wanted the output of imagexplain batch --input, got no {SETTINGS}")
        found = summarize(table.rows(folder / TABLE))
        if found.images == 0:
            raise ValueError(f"{folder}: wanted a table with rows, got none: the job has not written any yet")
        for name, text in {
            PAGE: summary_page.page(found, folder, given.title or folder.resolve().name),
            CSV: summary_page.table(found),
        }.items():
            with table.written_whole(folder / name) as own:
                own.write_text(text, encoding="utf-8")
            say(f"{folder / name}")
        if not found.classes:
            say(f"none of {found.images} images was explained: the page says why")
        elif not any(one.segments for one in found.classes):
            say("the explanations have no groups: imagexplain batch --segments shows which carry the score")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
