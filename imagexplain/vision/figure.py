"""Figure: a picture as a paper prints it, with a title above, and the key and the legend beside the panel.

The panel lies below the title and above the key and the legend, or left of them where it is upright. Its place is in
the PNG's text: ``Panel`` is JSON, pixels: ``{"left", "top", "width", "height", "photo": [width, height],
"magnification"}``.
``Title`` and ``Description`` hold all that is written, uncut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from imagexplain.vision.heatmap import veil
from imagexplain.vision.lettering import fitted, font, length, wrapped, write

Colour = tuple[int, int, int]

INK: Colour = (20, 20, 24)
PALE: Colour = (95, 95, 104)
PAPER: Colour = (255, 255, 255)

SMALL_PHOTO = 384
"""Length in pixels to which the longer side of a smaller photo is enlarged, by a whole factor."""
_THIN = 16  # pixels to which the shorter side of a very long photo is, where that makes it no longer than _LONG
_LONG = 4096
_LEAST_EM = 13  # pixels
_LEAST_WIDTH, _COLUMN, _UPRIGHT = 30, 22, 1.15  # em, em, height by width


@dataclass(frozen=True)
class ColourKey:
    """Key of a veil of colour.

    Attributes:
        scale: Magnitude of full colour, at least 0.
        low: Meaning of blue, empty where nothing is negative.
        high: Meaning of red.
    """

    scale: float
    low: str = "opposes"
    high: str = "supports"


@dataclass(frozen=True)
class Row:
    """Row of the legend.

    Attributes:
        text: Drawable name.
        values: Drawable numbers, in columns of their own at the row's end; as many in each row of a legend.
        colour: Colour of its swatch, None for no swatch.
        number: Number of its mark in the panel, None for none.
    """

    text: str
    values: tuple[str, ...]
    colour: Colour | None
    number: int | None = None


@dataclass(frozen=True)
class Caption:
    """Texts around a panel; all of them drawable.

    Attributes:
        title: Title, in bold type above it.
        lines: Lines below the title.
        key: Key of the colours.
        legend: Legend of the regions.
        notes: Notes below key and legend.
    """

    title: str
    lines: tuple[str, ...] = ()
    key: ColourKey | None = None
    legend: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Text of all but the title, line by line."""
        rows = [
            "  ".join(part for part in (str(row.number or ""), row.text, *row.values) if part) for row in self.legend
        ]
        return "\n".join((*self.lines, *rows, *self.notes))


def em_of(size: tuple[int, int]) -> int:
    """Size in pixels of the letters beside a panel of that width and height."""
    return max(_LEAST_EM, round(math.sqrt(size[0] * size[1]) / 40))


def magnification(size: tuple[int, int]) -> int:
    """Factor, a whole number, by which a photo of that width and height is enlarged, so that letters fit beside it."""
    longer, shorter = max(size), min(size)
    return max(1, round(SMALL_PHOTO / longer), min(_THIN // shorter, _LONG // longer))


def magnified(photo: Image.Image, factor: int) -> Image.Image:
    """Magnify the photo: each pixel becomes ``factor`` × ``factor`` of them."""
    if factor == 1:
        return photo
    return photo.resize((photo.width * factor, photo.height * factor), Image.Resampling.NEAREST)


def shade(strength: float) -> Colour:
    """Colour of a strength in [−1, 1] on paper, as key and legend show it."""
    red, green, blue = veil(np.full((1, 1), 240, dtype=np.uint8), np.full((1, 1), strength, dtype=np.float32))[0, 0]
    return int(red), int(green), int(blue)


def number(value: float, *, signed: bool = True) -> str:
    """Number of three digits as text, with a typographic minus."""
    text = f"{value:+#.3g}" if signed and value else f"{value:#.3g}"
    return text.replace("-", "−")


def figure(panel: Image.Image, caption: Caption, photo: tuple[int, int], factor: int | None = None) -> Image.Image:
    """Set the panel with its caption.

    Args:
        panel: RGB image of the panel.
        caption: Texts of the caption, which go into the image's ``info`` in any case.
        photo: Width and height of the photo.
        factor: Magnification of the photo in the panel; None to leave the panel bare.
    """
    place, picture = (0, 0), panel
    if factor is not None:
        picture, place = _set(panel, caption)
    box = {"left": place[0], "top": place[1], "width": panel.width, "height": panel.height}
    told = json.dumps({**box, "photo": list(photo), "magnification": factor or 1})
    picture.info |= {"Title": caption.title, "Description": caption.text(), "Panel": told}
    return picture


def _set(panel: Image.Image, caption: Caption) -> tuple[Image.Image, tuple[int, int]]:
    """Lay out the whole sheet; with it comes the panel's (left, top) on it."""
    em = em_of(panel.size)
    beside = bool(caption.legend) and panel.height > _UPRIGHT * panel.width
    least = _LEAST_WIDTH * em
    if beside:
        width = max(least, panel.width + em + _COLUMN * em)
        side_width = width - panel.width - em
    else:
        width = side_width = max(least, panel.width)
    head = _stack(
        [
            _lines([caption.title], width, round(1.15 * em), INK, bold=True),
            *(_lines([line], width, em, PALE) for line in caption.lines),
        ],
        width,
        em // 5,
    )
    pieces = [_key(caption.key, side_width, em)] if caption.key else []
    if caption.legend:
        pieces.append(_legend(caption.legend, side_width, em))
    if caption.notes:
        pieces.append(_lines(caption.notes, side_width, max(_LEAST_EM - 2, round(0.85 * em)), PALE))
    side = _stack(pieces, side_width, em // 2)
    left, top = em, em + head.height + em // 2
    if beside:
        at, height = (left + panel.width + em, top), top + max(panel.height, side.height) + em
    else:
        at, height = (left, top + panel.height + em // 2), top + panel.height + em // 2 + side.height + em
    sheet = Image.new("RGB", (width + 2 * em, height), PAPER)
    sheet.paste(head, (left, em))
    sheet.paste(panel, (left, top))
    sheet.paste(side, at)
    return sheet, (left, top)


def _stack(pieces: Sequence[Image.Image], width: int, gap: int) -> Image.Image:
    height = sum(piece.height for piece in pieces) + gap * max(0, len(pieces) - 1)
    stack, top = Image.new("RGB", (width, max(1, height)), PAPER), 0
    for piece in pieces:
        stack.paste(piece, (0, top))
        top += piece.height + gap
    return stack


def _lines(texts: Sequence[str], width: int, size: int, colour: Colour, *, bold: bool = False) -> Image.Image:
    """Texts below one another, each in at most three lines."""
    face, step = font(size, bold=bold), round(1.4 * size)
    rows = [row for text in texts for row in wrapped(text, face, width, 3)]
    strip = Image.new("RGB", (width, max(1, step * len(rows))), PAPER)
    draw = ImageDraw.Draw(strip)
    for place, row in enumerate(rows):
        write(draw, (0, step * (place + 0.76)), row, face, colour, anchor="ls")
    return strip


def _key(key: ColourKey, width: int, em: int) -> Image.Image:
    """Bar from blue to red between its meanings, over the numbers at its ends and middle."""
    face = font(em)
    low, high = (length(text, face) + em / 2 if text else 0 for text in (key.low, key.high))
    bar = max(4 * em, min(round(width - low - high), 18 * em))
    height = round(0.9 * em)
    strip = Image.new("RGB", (width, round(2.6 * em)), PAPER)
    draw = ImageDraw.Draw(strip)
    write(draw, (0, 0.8 * em), key.low, face, INK, anchor="ls")
    strength = np.tile(np.linspace(-1 if key.low else 0, 1, bar, dtype=np.float32), (height, 1))
    left = round(low)
    strip.paste(Image.fromarray(veil(np.full((height, bar), 240, dtype=np.uint8), strength)), (left, 0))
    draw.rectangle((left, 0, left + bar - 1, height - 1), outline=PALE)
    write(draw, (left + bar + em / 2, 0.8 * em), key.high, face, INK, anchor="ls")
    small = font(max(_LEAST_EM - 2, round(0.85 * em)))
    ticks = [(left + bar, number(key.scale), "rs")]
    ticks.append((left + bar // 2, "0", "ms") if key.low else (left, "0", "ls"))
    if key.low:
        ticks.append((left, number(-key.scale), "ls"))
    for x, text, anchor in ticks:
        write(draw, (x, 2.1 * em), text, small, PALE, anchor=anchor)
    return strip


def _legend(rows: Sequence[Row], width: int, em: int) -> Image.Image:
    """Rows in as many columns as there is room for, column by column."""
    columns = min(max(1, width // (_COLUMN * em)), len(rows))
    gap, step = 2 * em, round(1.5 * em)
    down = -(-len(rows) // columns)
    column = min((width - gap * (columns - 1)) // columns, 34 * em)
    face, bold = font(em), font(em, bold=True)
    strip = Image.new("RGB", (width, step * down), PAPER)
    draw = ImageDraw.Draw(strip)
    figures = max(round(length(str(row.number or ""), bold)) for row in rows)
    takes = [
        max(length(text, face) for text in texts) + em for texts in zip(*(row.values for row in rows), strict=True)
    ]
    for place, row in enumerate(rows):
        left, middle = place // down * (column + gap), place % down * step + step // 2
        baseline = middle + 0.36 * em
        if row.number is not None:
            write(draw, (left + figures, baseline), str(row.number), bold, INK, anchor="rs")
        left_of_swatch = left + figures + em // 2
        if row.colour is not None:
            top = middle - em // 2
            draw.rectangle((left_of_swatch, top, left_of_swatch + em, top + em), row.colour, PALE)
        start = left_of_swatch + round(1.6 * em)
        end: float = left + column
        write(draw, (start, baseline), fitted(row.text, face, end - start - sum(takes)), face, INK, anchor="ls")
        for text, taken in zip(reversed(row.values), reversed(takes), strict=True):
            write(draw, (end, baseline), text, face, INK, anchor="rs")
            end -= taken
    return strip
