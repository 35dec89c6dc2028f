"""Class names from the files in which people keep them.

One label per line, in the order of the model's outputs. Also numbered lines (``0: cat``, ``0,cat``, ``cat,0``), lines
that begin with a WordNet synset (``n01440764 tench, Tinca tinca``), and JSON, YAML or a Python literal: a list of
labels, or a mapping between labels and indices. A file that could mean something else is refused with its line: a label
too many or too few would give every later class the name of its neighbour.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

MAX_BYTES = 10_000_000
"""Bytes of a label file, at most."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    # Before that of UTF-16, which is the beginning of it.
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_LINE_END = re.compile(r"\r\n|\r|\n")
# A number, something that only a table has between columns, and the rest; then the same the other way round.
_NUMBERED = re.compile(r"\s*(\d{1,9})\s*[,;:=|\t]\s*(\S.*)")
_NUMBER_LAST = re.compile(r"(.*\S)\s*[,;:=|\t]\s*(\d{1,9})\s*")
# A list's number or a space, which labels have, too: numbers only where they count.
_COUNTED = re.compile(r"\s*(\d{1,9})[.)]?\s+(\S.*)")
_SYNSET = re.compile(r"(n\d{8})[\s,;:|]+(\S.*)")
_TABLES_NUMBER = re.compile(r"\d+\s+\S")
_LIST = re.compile(r"\[\s*([\"'\d\n\r\[{]|$)")
_STRUCTURED = (".json", ".yaml", ".yml")

Line = tuple[int, str]


def read(file: Path) -> tuple[str, ...]:
    """The labels in a file, by index.

    Raises:
        ValueError: the file, the line, and what is wrong there.
        OSError: the file cannot be read.
    """
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{file}: wanted at most {MAX_BYTES:,} bytes")
    text = _decoded(file, data)
    labels = _of_text(file, text)
    if not labels:
        raise ValueError(f"{file}: wanted one label per line, the file holds none")
    return labels


def _of_text(file: Path, text: str) -> tuple[str, ...]:
    start = text.lstrip()
    if file.suffix.lower() in _STRUCTURED or start.startswith("{") or _LIST.match(start):
        return _structured(file, _parsed(file, text))
    lines = [(number, line.strip()) for number, line in enumerate(_LINE_END.split(text), 1)]
    while lines and not lines[-1][1]:
        lines.pop()
    for number, line in lines:
        if not line:
            _refuse(file, number, "wanted a label, the line is empty, though others follow")
    lines = _without_header(lines)
    lines = _without_numbers(file, lines)
    lines = _without_synsets(file, [(number, _unquoted(line)) for number, line in lines])
    first: dict[str, int] = {}
    for number, label in lines:
        odd = next((each for each in label if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")), None)
        odd = "\ufeff" if odd is None and "\ufeff" in label else odd
        if not label:
            _refuse(file, number, "wanted a label, given quotation marks around nothing")
        if odd is not None:
            _refuse(file, number, f"wanted text, given {label!r:.80} with the character U+{ord(odd):04X}")
        if label in first:
            _refuse(file, number, f"wanted different names, {label!r:.80} stands in line {first[label]} too")
        first[label] = number
    return tuple(first)


def _decoded(file: Path, data: bytes) -> str:
    """The text, by the file's byte-order mark, else as UTF-8."""
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    data = data[len(mark) :]
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, "replace")
        _refuse(
            file,
            len(_LINE_END.split(before)),
            f"wanted {encoding.upper()}, given the byte 0x{data[error.start]:02x}; save the file as UTF-8",
        )


def _without_header(lines: list[Line]) -> list[Line]:
    """The lines without the first, where that names the columns of numbered lines."""
    for pattern in (_NUMBERED, _NUMBER_LAST):
        if len(lines) > 1 and _is_numbered(pattern, lines[1:]) and not pattern.fullmatch(lines[0][1]):
            separators = set(",;:=|\t") & set(lines[1][1])
            return lines[1:] if separators & set(lines[0][1]) else lines
    return lines


def _is_numbered(pattern: re.Pattern[str], lines: list[Line]) -> bool:
    return all(pattern.fullmatch(line) for _, line in lines)


def _without_numbers(file: Path, lines: list[Line]) -> list[Line]:
    """Labels in the order of the numbers beside them, where these count."""
    if len(lines) > 1 and _is_numbered(_NUMBERED, lines[1:]) and not _NUMBERED.fullmatch(lines[0][1]):
        _refuse(file, lines[0][0], f"wanted an index and a label, as in all other lines, given {lines[0][1]!r:.80}")
    if lines and _NUMBERED.fullmatch(lines[0][1]):
        for number, line in lines:
            if not _NUMBERED.fullmatch(line):
                _refuse(file, number, f"wanted an index and a label, as in the lines before, given {line!r:.80}")
        rows = [(*_NUMBERED.fullmatch(line).groups(), number) for number, line in lines]  # type: ignore[union-attr]
        return _in_order(file, [(int(index), label, number) for index, label, number in rows])
    for pattern, label_first in ((_NUMBER_LAST, True), (_COUNTED, False)):
        if not lines or not _is_numbered(pattern, lines):
            continue
        groups = [pattern.fullmatch(line).groups() for _, line in lines]  # type: ignore[union-attr]
        pairs = [(int(second), first) if label_first else (int(first), second) for first, second in groups]
        rows = [(index, label, number) for (index, label), (number, _) in zip(pairs, lines, strict=True)]
        indices = [index for index, *_ in rows]
        names = {label for _, label, _ in rows}
        if _counts(sorted(indices) if label_first else indices) and len(names) == len(rows) > 1:
            return _in_order(file, rows)
    return lines


def _counts(indices: Sequence[int]) -> bool:
    return list(indices) in (list(range(len(indices))), list(range(1, len(indices) + 1)))


def _in_order(file: Path, rows: list[tuple[int, str, int]]) -> list[Line]:
    ordered = sorted(rows, key=lambda row: row[0])
    start = 1 if ordered[0][0] == 1 else 0
    for wanted, (index, _, number) in enumerate(ordered, start):
        if index != wanted:
            _refuse(file, number, f"wanted each index from {start} to {len(rows) - 1 + start} once, given {index}")
    return [(number, label) for _, label, number in ordered]


def _without_synsets(file: Path, lines: list[Line]) -> list[Line]:
    """Labels without the WordNet synset before each; where two are then the same, with it behind them."""
    found = [(number, _SYNSET.fullmatch(line)) for number, line in lines]
    if not all(match for _, match in found):
        return lines
    rows = [(number, match[1], match[2]) for number, match in found if match]
    if rows and all(_TABLES_NUMBER.match(label) for _, _, label in rows):
        _refuse(file, rows[0][0], "wanted a synset and a label, given a number between them, in whose order is unknown")
    times = Counter(label for _, _, label in rows)
    return [(number, label if times[label] == 1 else f"{label} ({synset})") for number, synset, label in rows]


def _unquoted(label: str) -> str:
    quoted = len(label) > 1 and label[0] == label[-1] and label[0] in "\"'"
    return label[1:-1].replace('""', '"').strip() if quoted else label


def _parsed(file: Path, text: str) -> Any:
    """The value of a text in JSON or YAML, or of a Python literal."""
    if file.suffix.lower() in (".yaml", ".yml"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            _refuse(file, mark.line + 1 if mark else 1, f"not YAML: {getattr(error, 'problem', error)}")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        _refuse(file, 1, "nested too deep")
    except json.JSONDecodeError as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            _refuse(file, error.lineno, f"neither JSON nor a Python literal: {error.msg}")
    except ValueError as error:
        _refuse(file, 1, str(error))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    name, times = Counter(name for name, _ in pairs).most_common(1)[0] if pairs else ("", 0)
    if times > 1:
        raise ValueError(f"wanted each key once, {name!r:.80} repeats")
    return dict(pairs)


def _structured(file: Path, content: Any) -> tuple[str, ...]:
    """The labels of a list, or of a mapping from indices to labels or from labels to indices."""
    for key in ("id2label", "names", "labels", "classes"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping | list):
            content = content[key]
    if isinstance(content, Mapping):
        by_index = all(re.fullmatch(r"\d{1,9}", str(key)) for key in content)
        to_index = all(type(index) is int for index in content.values())
        if not content or by_index == to_index:
            raise ValueError(f"{file}: wanted labels by index, or indices by label")
        pairs = [(int(key), value) if by_index else (value, key) for key, value in content.items()]
        if sorted(index for index, _ in pairs) != list(range(len(pairs))):
            raise ValueError(f"{file}: wanted each index from 0 to {len(pairs) - 1} once")
        # ImageNet's own: from an index to a synset and a label.
        content = [
            value[-1] if isinstance(value, list | tuple) and len(value) == 2 else value
            for _, value in sorted(pairs, key=lambda pair: pair[0])
        ]
    if not isinstance(content, list | tuple):
        raise ValueError(f"{file}: wanted a list of labels, given {type(content).__name__}")
    first: dict[str, int] = {}
    for index, label in enumerate(content):
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"{file}: label {index}: wanted text, given {label!r:.80}")
        if label.strip() in first:
            raise ValueError(f"{file}: label {index}: {label!r:.80} is label {first[label.strip()]} too")
        first[label.strip()] = index
    return tuple(first)


def _refuse(file: Path, line: int, message: str) -> NoReturn:
    raise ValueError(f"{file}: line {line}: {message}")
