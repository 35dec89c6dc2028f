"""Text from files and libraries, made fit for a terminal and a log."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from itertools import groupby

MAX_MARKS = 2
"""Number of combining marks on one letter that are drawn; more of them would pile up over the line above."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_SPACES = frozenset({"Zs", "Zl", "Zp"})
_JOINERS = dict.fromkeys([0x200C, 0x200D, *range(0xFE00, 0xFE10)])  # choose a form of their neighbours, no more
_BREAKS = dict.fromkeys(map(ord, "\t\n\v\f\r\x85"), " ")


def escaped(text: str) -> str:
    """The same text, with an escape for every character that a terminal would obey or cannot show; lines stay lines."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode("ascii") for each in text
    )


def printable(text: str) -> str:
    """The text in one line, with the code points of all that cannot be seen in place of it."""
    return spelled(text, lambda _: True)


def spelled(text: str, seen: Callable[[str], bool]) -> str:
    """The text in one line, with a name or code point for all that cannot be seen, or of which `seen` says so."""
    letters = unicodedata.normalize("NFC", text.translate(_BREAKS).translate(_JOINERS))
    marks, fine = 0, []
    for letter in letters:
        category = unicodedata.category(letter)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        fine.append(category in _SPACES or (category not in _INVISIBLE and marks <= MAX_MARKS and seen(letter)))
    words: list[str] = []
    for good, run in groupby(zip(fine, letters, strict=True), key=lambda pair: pair[0]):
        part = "".join(letter for _, letter in run)
        words += part.split() if good else map(_name, part)
    return " ".join(words)


def in_file_name(address: str) -> str:
    """A model's name in the name of a file: name@version for name/version."""
    return address.replace("/", "@")


def _name(letter: str) -> str:
    name = unicodedata.name(letter, "") if unicodedata.category(letter) in ("So", "Sk") else ""
    return f"‹{name.lower()}›" if name else f"U+{ord(letter):04X}"
