"""Text from files and libraries, made fit for a terminal and a log."""

from __future__ import annotations


def escaped(text: str) -> str:
    """The same text, with an escape for every character that a terminal would obey or cannot show; lines stay lines."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode("ascii") for each in text
    )
