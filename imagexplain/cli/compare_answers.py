"""Compare recorded answers of another service with ours: where they differ, by how much, and likely why.

compare-answers recorded.jsonl ours.jsonl

Each file has JSON lines: an answer a line in Vertex AI's form or in KServe's V1 (predictions, explanations), or an
instance a line as batch jobs write it. Lines that have their instance are matched by it, others by their order. Nothing
is asked of a server. The exit status is 0 where all answers agree, 1 where some do not, and 2 for files that cannot be
compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from imagexplain.agreement.comparison import Comparison, FieldDifference, compare
from imagexplain.agreement.recorded import Answer, answers_of
from imagexplain.errors import ArgumentError
from imagexplain.plain_text import printable

Matches = Iterator[tuple[int, int, Answer, Answer]]


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("recorded", type=Path, help="answers of the other service, JSON lines")
    made.add_argument("ours", type=Path, help="answers of this one to the same instances")
    made.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="difference that counts as none, as a part of the largest magnitude on record (default: 0.001)",
    )
    made.add_argument("--json", action="store_true", help="print a JSON object for each instance")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """Compare the two files that the command line names; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    total, agreeing, why = 0, 0, Counter[str]()
    try:
        for line, place, recorded, ours in matches(given.recorded, given.ours):
            found = compare(recorded, ours, given.tolerance)
            print(as_json(line, place, found) if given.json else as_text(line, place, found))
            total, agreeing = total + 1, agreeing + found.agrees
            why.update({reason.partition(":")[0] for reason in found.reasons})
    except (ArgumentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not given.json:
        likely = "".join(f"; {reason}: {count}" for reason, count in why.most_common())
        print(f"{agreeing} of {total} agree within {given.tolerance:g}{likely}")
    return 0 if agreeing == total else 1


def matches(recorded: Path, ours: Path) -> Matches:
    """Recorded answers with ours, each with the number of its line and its place in that; a line at a time in memory.

    Raises:
        ArgumentError: a file without lines, a line that is no answer, or one that the other file lacks.
    """
    places, keys = _index(ours)
    if not places:
        raise ArgumentError(str(ours), "wanted answers, got no line")
    count = 0
    with recorded.open("rb") as theirs, ours.open("rb") as own:
        for number, line in enumerate(theirs, 1):
            if not line.strip():
                continue
            old = _read(line, recorded, number)
            keyed = keys and len(old) == 1 and old[0].key is not None
            if keyed and old[0].key not in keys:
                raise ArgumentError(str(ours), f"wanted an answer to the instance of {recorded}:{number}, got none")
            if not keyed and count >= len(places):
                raise ArgumentError(str(ours), f"wanted as many lines as {recorded} has, got {len(places)}")
            at, offset = places[keys[old[0].key or ""] if keyed else count]
            own.seek(offset)
            new = _read(own.readline(), ours, at)
            if len(new) != len(old):
                raise ArgumentError(f"{ours}:{at}", f"wanted {len(old)} instances, got {len(new)}")
            for place, (one, other) in enumerate(zip(old, new, strict=True)):
                yield number, place, one, other
            count += 1
    if count != len(places):
        raise ArgumentError(str(recorded), f"wanted as many lines as {ours} has, {len(places)}, got {count}")


def as_text(line: int, place: int, found: Comparison) -> str:
    """The lines for an instance: fields that differ, and why; one line where all agree."""
    head = f"line {line}, instance {place}: {'agrees' if found.agrees else 'differs'}"
    fields = [f"  {one.field:<{_width(found)}}  {_stated(one)}" for one in found.fields]
    return "\n".join([head, *fields, *(f"  likely {reason}" for reason in found.reasons)])


def as_json(line: int, place: int, found: Comparison) -> str:
    """The same as a JSON object."""
    fields = [{name: value for name, value in vars(one).items() if value not in (None, "")} for one in found.fields]
    return json.dumps(
        {"line": line, "instance": place, "agrees": found.agrees, "fields": fields, "reasons": found.reasons}
    )


def _index(file: Path) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """The number and offset of each line, and its position among these by its instance, where all lines have one."""
    places: list[tuple[int, int]] = []
    keys: dict[str, int] = {}
    with file.open("rb") as lines:
        offset = 0
        for number, line in enumerate(lines, 1):
            if line.strip():
                first = _read(line, file, number)[:1]
                if first and first[0].key is not None:
                    keys[first[0].key] = len(places)
                places.append((number, offset))
            offset += len(line)
    return places, keys if len(keys) == len(places) else {}


def _read(line: bytes, file: Path, number: int) -> list[Answer]:
    try:
        return answers_of(line)
    except ArgumentError as error:
        raise ArgumentError(f"{file}:{number}", str(error)) from None


def _width(found: Comparison) -> int:
    return max(len(one.field) for one in found.fields)


def _stated(one: FieldDifference) -> str:
    words = "agrees" if one.agrees else "differs"
    if one.largest is not None and one.relative is not None:
        words += f", largest difference {one.largest:.3g} ({one.relative:.2%} of the largest on record)"
    if one.rank_correlation is not None:
        words += f", rank correlation {one.rank_correlation:.4f}"
    return words + (f": {printable(one.note)}" if one.note else "")
