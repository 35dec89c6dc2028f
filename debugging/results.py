"""The folder of results that the steps of debugging share.

========================  =====================================================================================
``find.json``             settings of ``find``; another run into the folder wants the same
``images.jsonl``          a line for each finished image, by which ``find`` resumes
``errors.json``           counts, skipped files, and the errors with their features, by image
``segments.csv``          a row for each segment of each error
``crops/``                pictures of the responsible segments
``concepts.json``         members and centres of each class's concepts
``concepts.yaml``         the concepts to edit: keep, drop, rename
``concepts.html``         the page to read beside it
``pool_scores.jsonl``     a line for each scored image of the pool; ``pool_scores.json`` has the settings
``pool_drivers.jsonl``    likewise, the segment that drives it most
``selection/``            a CSV for each strategy; ``prompts.txt``
``tasks.json``            tasks for people, and ``annotate.html``, the page that asks them
``difficulty.json``       difficulty of each image, from their answers; ``regionfiles/`` for scene graphs
``train/``                ``train.json``, the settings, and the folder of each run
``report/``               ``report.html``, ``.json`` and ``.csv``; answers and segments of each model
========================  =====================================================================================

A file is written under a temporary name and renamed; only the ``.jsonl`` files grow line by line, and a last line that
is torn is done again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagexplain.errors import ArgumentError
from training.finetuning.whole_files import replace

DIGITS = 7
"""Significant digits of numbers in files: those of float32."""


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, and rename it; folders are made."""
    replace(file, lambda partial: partial.write_bytes(content))


def write_text(file: Path, text: str) -> None:
    """Write a text like :func:`write_bytes`, in UTF-8."""
    write_bytes(file, text.encode("utf-8"))


def write_json(file: Path, content: Any) -> None:
    """Write JSON like :func:`write_bytes`, numbers by their significant digits."""
    write_text(file, json.dumps(rounded(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table like :func:`write_bytes`."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rounded(row) for row in rows)
    write_text(file, text.getvalue())


def read_json(file: Path, made_by: str) -> Any:
    """Content of a JSON file that another step made.

    Raises:
        ArgumentError: no such file, or no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArgumentError("results", f"wanted {file}, which {made_by} writes, got none") from None
    except (OSError, ValueError) as error:
        raise ArgumentError("results", f"{file}: wanted JSON: {error}") from None


def same_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write a step's settings, or find that those on record are the same.

    Raises:
        ArgumentError: others are on record.
    """
    wanted = json.loads(json.dumps(rounded(settings)))
    if not file.exists():
        write_json(file, wanted)
        return
    before = read_json(file, "this step")
    differing = sorted(name for name in before.keys() | wanted.keys() if before.get(name) != wanted.get(name))
    if differing:
        said = "; ".join(f"{name} {before.get(name)!r} there, {wanted.get(name)!r} now" for name in differing)
        raise ArgumentError("results", f"wanted the settings of {file} to resume, or another folder: {said}")


class Record:
    """Finished images, one JSON object a line, by their name.

    A last line that an interrupted run left torn is cut off.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[str, dict[str, Any]] = {}
        content = file.read_bytes() if file.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_bytes(file, whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self.lines[entry["image"]] = entry

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append one image's entry."""
        line = json.dumps(rounded(entry), ensure_ascii=False, allow_nan=False)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.lines[entry["image"]] = json.loads(line)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Names of images that are not finished, in their order."""
        return [name for name in names if name not in self.lines]


def rounded(value: Any) -> Any:
    """The value with all floats within it rounded to :data:`DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value
