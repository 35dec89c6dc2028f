"""Text that can be drawn and printed, whatever a client or a label file holds.

Pictures are lettered in DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew,
Arabic and many signs. What it has no glyph for is spelled out: a symbol by its name (``‹dog face›``), anything else by
its code point (``U+4E2D``). So is what has no look of its own, such as control characters and bidirectional overrides.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont, features

from imagexplain.plain_text import spelled

Font = ImageFont.FreeTypeFont

UNNAMED = "(no label)"
"""Text in place of a label without anything to be seen."""

_LEFTWARDS = frozenset({"R", "AL"})


def drawable(text: str) -> str:
    """Text in one line, with a name or code point for all that the font cannot draw; never empty."""
    return spelled(text, _has_glyph) or UNNAMED


def font(size: int, *, bold: bool = False) -> Font:
    """DejaVu Sans of so many pixels."""
    return _font(max(1, size), bold)


def length(text: str, face: Font) -> float:
    """Length of a drawable text in a line, in pixels."""
    return face.getlength(text, **_direction())


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    face: Font,
    colour: tuple[int, int, int],
    anchor: str = "la",
    **options: Any,
) -> None:
    """Draw a drawable text; ``anchor`` and the other options are Pillow's."""
    draw.text(place, text, fill=colour, font=face, anchor=anchor, **_direction(), **options)


def fitted(text: str, face: Font, width: float) -> str:
    """Text, cut where it is wider than so many pixels."""
    if length(text, face) <= width:
        return text
    kept = bisect_right(range(1, len(text) + 1), width, key=lambda count: length(f"{text[:count]}…", face))
    return f"{text[:kept].rstrip()}…"


def wrapped(text: str, face: Font, width: float, most: int) -> list[str]:
    """Wrap the text to at most so many lines, none wider than so many pixels; the last is cut where there is more."""
    words = text.split(" ")
    lines: list[str] = []
    while words and len(lines) < most:
        count = bisect_right(range(1, len(words) + 1), width, key=lambda upto: length(" ".join(words[:upto]), face))
        count = len(words) if len(lines) == most - 1 else max(1, count)
        lines.append(fitted(" ".join(words[:count]), face, width))
        words = words[count:]
    return lines


def _has_glyph(letter: str) -> bool:
    # Without libraqm, Pillow draws right-to-left letters from left to right and unjoined: not legible.
    return ord(letter) in _glyphs() and (_shapes() or unicodedata.bidirectional(letter) not in _LEFTWARDS)


@cache
def _glyphs() -> frozenset[int]:
    """Code points that both weights of the font have."""
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    with TTFont(_file(False), lazy=True) as regular, TTFont(_file(True), lazy=True) as bold:
        return frozenset(regular.getBestCmap().keys() & bold.getBestCmap().keys())


@cache
def _shapes() -> bool:
    """Test whether Pillow can order and join the letters of all scripts."""
    return bool(features.check("raqm")) and bool(features.check("fribidi"))


def _direction() -> dict[str, Any]:
    return {"direction": "ltr"} if _shapes() else {}  # of the line; words in Hebrew or Arabic still run their own way


@cache
def _font(size: int, bold: bool) -> Font:
    layout = ImageFont.Layout.RAQM if _shapes() else ImageFont.Layout.BASIC
    return ImageFont.truetype(_file(bold), size, layout_engine=layout)


@cache
def _file(bold: bool) -> Path:
    import matplotlib  # takes a third of a second, which a worker that draws nothing need not spend

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
