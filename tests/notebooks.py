"""Notebooks as tests read them: the text that their cells put out, and whether another run's is the same."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nbformat import NotebookNode

from imagexplain.ops.server import ROOT
from scripts.execute_notebooks import FOLDER, execute, read, text_of

NUMBER = re.compile(r"[+-]?(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?")
RELATIVE = 0.02
UNITS = 2.0
"""Difference of two numbers that is allowed, in units of the last digit that is shown."""
PLACES = (str(ROOT), str(Path.home()), "/home/", "/root", "/tmp/", "/private/", "site-packages", "ipykernel_")


def rerun(name: str, folder: Path, environment: Mapping[str, str] | None = None) -> tuple[NotebookNode, NotebookNode]:
    """A notebook as it is kept, and as it runs now in a folder."""
    kept = read(FOLDER / f"{name}.ipynb")
    return kept, execute(kept, folder, {"OMP_NUM_THREADS": "1", **(environment or {})})


def differences(kept: NotebookNode, now: NotebookNode) -> list[str]:
    """The cells whose words are others now, or whose numbers are more than :data:`UNITS` and :data:`RELATIVE` away."""
    before, after = list(text_of(kept)), list(text_of(now))
    if [cell for cell, _ in before] != [cell for cell, _ in after]:
        return [f"outputs of {[cell for cell, _ in before]}, now of {[cell for cell, _ in after]}"]
    return [
        f"{cell}: {one!r}, now {two!r}"
        for (cell, one), (_, two) in zip(before, after, strict=True)
        if not same(one, two)
    ]


def same(one: str, two: str) -> bool:
    """Whether two texts have the same words, and numbers near to each other."""
    if NUMBER.sub("0", one).split() != NUMBER.sub("0", two).split():
        return False
    return all(_near(first, second) for first, second in zip(NUMBER.findall(one), NUMBER.findall(two), strict=True))


def machine_paths(notebook: NotebookNode) -> Iterator[str]:
    """Texts of outputs that tell of the machine on which the notebook ran."""
    for cell, text in text_of(notebook):
        yield from (f"{cell}: {place}" for place in PLACES if place in text and place != os.sep)


def _near(first: str, second: str) -> bool:
    mantissa, _, exponent = first.replace(",", "").partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    values = (float(text.replace(",", "")) for text in (first, second))
    return math.isclose(*values, rel_tol=RELATIVE, abs_tol=UNITS * unit * 1.0001)
