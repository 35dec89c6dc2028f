"""Contact sheet: pictures side by side, each under its family and over its name, to be compared at one glance."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from imagexplain.vision.heatmap import veil
from imagexplain.vision.lettering import Font, drawable, fitted, font, length, write

MARGIN = 24
GAP = 14
BAND = 28
"""Height of the band above each picture, for the family."""
CAPTION = 46
"""Height of the band below each picture, for the name and a note."""
HEADER = 40
FOOTER = 44

_INK, _PALE, _LINE, _PAPER = (28, 28, 32), (112, 112, 120), (196, 196, 204), (255, 255, 255)
_LINE_STEP = 19
_TITLE, _NAME, _NOTE = 21, 14, 12  # pixels


@dataclass(frozen=True)
class Tile:
    """A picture with what is written around it.

    Attributes:
        picture: RGB image.
        name: Name, in large type below it.
        note: Note, in small type below that.
        family: Family; neighbours of the same one share a heading.
    """

    picture: Image.Image
    name: str
    note: str = ""
    family: str = ""


def contact_sheet(tiles: Sequence[Tile], columns: int, title: str, footer: str) -> Image.Image:
    """Draw the tiles in rows, in order, each centred in a cell of the size of the largest.

    Args:
        tiles: Tiles, at least one.
        columns: Largest number of tiles in a row, at least 1.
        title: Line above them; cut where it is longer than a row.
        footer: Line below them, beside the scale of colours of a heat map.

    Returns:
        An RGB image; :func:`places` says where the pictures' cells lie.

    Raises:
        ValueError: no tiles, or no columns.
    """
    corners, (width, height) = places(tiles, columns)
    cell, note = _cell(tiles), font(_NOTE)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (MARGIN, MARGIN + HEADER // 2), title, font(_TITLE, bold=True), width - 2 * MARGIN, _INK, "lm")
    for place, (tile, (left, top)) in enumerate(zip(tiles, corners, strict=True)):
        begins = place % columns == 0 or tiles[place - 1].family != tile.family
        if tile.family:  # a line over all neighbours of one family, under its name
            start = left if begins else left - GAP
            draw.line((start, top - 6, left + cell[0] - 1, top - 6), _LINE, 2)
            if begins:
                _write(draw, (left, top - 11), tile.family, note, cell[0], _PALE, "ls")
        picture = tile.picture
        sheet.paste(picture, (left + (cell[0] - picture.width) // 2, top + (cell[1] - picture.height) // 2))
        below = top + cell[1]
        _write(draw, (left, below + 19), tile.name, font(_NAME), cell[0], _INK, "ls")
        _write(draw, (left, below + 37), tile.note, note, cell[0], _PALE, "ls")
    scale = _scale(min(120, (width - 2 * MARGIN) // 3), 12)
    middle = height - MARGIN - FOOTER // 4
    sheet.paste(scale, (MARGIN, middle - scale.height // 2))
    left = MARGIN + scale.width + GAP
    _write(draw, (left, middle), footer, note, width - MARGIN - left, _PALE, "lm")
    return sheet


def places(tiles: Sequence[Tile], columns: int) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Place (left, top) of each tile's cell and (width, height) of the sheet, in pixels.

    Raises like :func:`contact_sheet`.
    """
    if not tiles:
        raise ValueError("tiles: wanted at least one, got none")
    if columns < 1:
        raise ValueError(f"columns: wanted at least 1, got {columns}")
    width, height = _cell(tiles)
    step = (width + GAP, BAND + height + CAPTION + GAP)
    corners = [
        (MARGIN + place % columns * step[0], MARGIN + HEADER + BAND + place // columns * step[1])
        for place in range(len(tiles))
    ]
    across, down = min(columns, len(tiles)), -(-len(tiles) // columns)
    return corners, (2 * MARGIN + across * step[0] - GAP, 2 * MARGIN + HEADER + down * step[1] - GAP + FOOTER)


def greyed(picture: Image.Image, text: str) -> Image.Image:
    """Fade the picture to a light grey under a text, which is wrapped and, where it is too long, cut."""
    grey = ImageEnhance.Color(picture).enhance(0)
    faded = Image.blend(grey, Image.new("RGB", picture.size, (236, 236, 238)), 0.86)
    note = font(_NOTE)
    em = length("abcdefghijklmnopqrstuvwxyz ", note) / 27
    rows = max(1, (picture.height - GAP) // _LINE_STEP)
    words = textwrap.wrap(
        drawable(text) if text else "", max(4, int((picture.width - 2 * GAP) / em)), max_lines=rows, placeholder=" …"
    )
    middle, written = (picture.width / 2, picture.height / 2), "\n".join(words)
    draw = ImageDraw.Draw(faded)
    draw.multiline_text(middle, written, _PALE, note, anchor="mm", align="center", spacing=5)
    return faded


def _cell(tiles: Sequence[Tile]) -> tuple[int, int]:
    return max(tile.picture.width for tile in tiles), max(tile.picture.height for tile in tiles)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    face: Font,
    width: int,
    colour: tuple[int, int, int],
    anchor: str,
) -> None:
    """Write a text of any letters, cut where it is wider than so many pixels."""
    if text:
        write(draw, place, fitted(drawable(text), face, width), face, colour, anchor)


def _scale(width: int, height: int) -> Image.Image:
    """Colours of a heat map, from all against to all for."""
    strength = np.tile(np.linspace(-1, 1, width, dtype=np.float32), (height, 1))
    return Image.fromarray(veil(np.full((height, width), 236, dtype=np.uint8), strength))
