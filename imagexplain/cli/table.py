"""Tables of text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imagexplain.plain_text import printable


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines with aligned columns, under their headings; the last column is as long as it is.

    Example:
        >>> from imagexplain.cli.table import table
        >>> print(table(["model", "labels"], [["bit", "10"], ["imagenet", "1000"]]))
        model     labels
        bit       10
        imagenet  1000
    """
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[-1] = 0
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
