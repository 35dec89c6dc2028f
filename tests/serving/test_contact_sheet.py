from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imagexplain.vision.contact_sheet import (
    BAND,
    CAPTION,
    FOOTER,
    GAP,
    HEADER,
    MARGIN,
    Tile,
    contact_sheet,
    greyed,
    places,
)

RED = (250, 0, 0)


def tile(width: int = 100, height: int = 60, name: str = "name", family: str = "family") -> Tile:
    return Tile(Image.new("RGB", (width, height), RED), name, "a note", family)


def red(sheet: Image.Image) -> np.ndarray:
    return (np.asarray(sheet) == RED).all(2)


def test_the_cells_lie_row_by_row_and_fill_the_sheet() -> None:
    corners, size = places([tile()] * 5, 3)
    left, top, down = MARGIN, MARGIN + HEADER + BAND, BAND + 60 + CAPTION + GAP
    across = [left, left + 100 + GAP, left + 2 * (100 + GAP)]
    assert corners == [(x, top) for x in across] + [(x, top + down) for x in across[:2]]
    assert size == (2 * MARGIN + 300 + 2 * GAP, 2 * MARGIN + HEADER + 2 * down - GAP + FOOTER)
    assert places([tile()] * 2, 3)[1][0] == 2 * MARGIN + 200 + GAP


def test_pictures_stand_whole_in_the_middle_of_their_cells() -> None:
    sizes = [(100, 60), (40, 60), (100, 20), (30, 30)]
    tiles = [tile(*size) for size in sizes]
    corners, size = places(tiles, 2)
    sheet = contact_sheet(tiles, 2, "title", "footer")
    wanted = np.zeros(size[::-1], dtype=bool)
    for (left, top), (width, height) in zip(corners, sizes, strict=True):
        x, y = left + (100 - width) // 2, top + (60 - height) // 2
        wanted[y : y + height, x : x + width] = True
    assert sheet.size == size
    assert np.array_equal(red(sheet), wanted)


def test_nothing_is_written_outside_its_place() -> None:
    tiles = [tile(name="W" * 200, family=f"{'W' * 90}{number}") for number in range(2)]
    inked = (np.asarray(contact_sheet(tiles, 2, "W" * 200, "W" * 200)) != 255).any(2)
    inked[inked.shape[0] - MARGIN - FOOTER :] = False
    inked[: MARGIN + HEADER, : inked.shape[1] - MARGIN] = False
    allowed = np.zeros_like(inked)
    for left, top in places(tiles, 2)[0]:
        allowed[top - BAND : top + 60 + CAPTION, left : left + 100] = True
    assert not (inked & ~allowed).any()


def test_a_line_joins_neighbours_of_one_family() -> None:
    tiles = [tile(family=family) for family in ("a", "a", "b", "b")]
    corners, _ = places(tiles, 3)
    row = np.asarray(contact_sheet(tiles, 3, "", ""))[corners[0][1] - 6, :, 0] != 255
    gaps = [row[left - GAP : left].all() for left, _ in corners[1:3]]
    assert gaps == [True, False]


def test_a_greyed_picture_has_no_colour_and_keeps_its_size() -> None:
    picture = Image.new("RGB", (120, 80), (10, 200, 30))
    said = np.asarray(greyed(picture, "a reason that takes several lines on so small a picture, and is cut " * 5))
    assert said.shape == (80, 120, 3)
    assert np.ptp(said.astype(int), axis=2).max() < 12
    assert (said < 160).any() and not (np.asarray(greyed(picture, "")) < 160).any()


def test_what_is_no_sheet() -> None:
    with pytest.raises(ValueError, match="tiles: wanted at least one"):
        contact_sheet([], 3, "", "")
    with pytest.raises(ValueError, match="columns: wanted at least 1, got 0"):
        contact_sheet([tile()], 0, "", "")
