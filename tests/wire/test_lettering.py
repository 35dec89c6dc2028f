from __future__ import annotations

import io
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from imagexplain.plain_text import printable
from imagexplain.progress import say
from imagexplain.vision import lettering
from imagexplain.vision.contact_sheet import Tile, contact_sheet
from imagexplain.vision.lettering import UNNAMED, drawable, fitted, font, length, wrapped, write

FACE = font(14)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("ñandú, Хлеб, ελ, שלום, سيارة", "ñandú, Хлеб, ελ, שלום, سيارة"),
        ("猫 cat", "U+732B cat"),
        ("交通", "U+4EA4 U+901A"),
        ("caf中é", "caf U+4E2D é"),
        ("cafe\u0301", "café"),
        ("हि", "U+0939 U+093F"),
        ("🦜 bird", "‹parrot› bird"),
        ("👩\u200d🔬\ufe0f", "‹woman› ‹microscope›"),
        ("a\u202eb\x1b[2J", "a U+202E b U+001B [2J"),
        ("two\nlines\tand\r\u2028more", "two lines and more"),
        ("\ud800x", "U+D800 x"),
        ("e" + "\u0301" * 5, "é\u0301\u0301 U+0301 U+0301"),
        ("", UNNAMED),
        (" \n\u3000", UNNAMED),
        ("\u200b", "U+200B"),
    ],
)
def test_all_text_is_drawn_in_letters_that_the_font_has(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


def test_right_to_left_letters_are_spelled_out_where_nothing_orders_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_shapes", lambda: False)
    assert drawable("אב ñ") == "U+05D0 U+05D1 ñ"


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(categories=None), max_size=200))
def test_whatever_a_client_sends_can_be_measured_cut_wrapped_and_drawn(text: str) -> None:
    shown = drawable(text)
    assert shown and not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cf", "Cs", "Co", "Cn"}
    assert not {unicodedata.category(letter) for letter in printable(text)} & {"Cc", "Cf", "Cs"}
    cut = fitted(shown, FACE, 90)
    assert length(cut, FACE) <= 90
    lines = wrapped(shown, FACE, 90, 3)
    assert len(lines) <= 3 and all(length(line, FACE) <= 90 for line in lines)
    picture = Image.new("L", (100, 20))
    write(ImageDraw.Draw(picture.convert("RGB")), (0, 0), cut, FACE, (255, 255, 255))


def test_no_letter_is_a_box() -> None:
    """Letters that differ are drawn differently: the glyph for a missing one is always the same."""

    def drawn(text: str) -> bytes:
        picture = Image.new("RGB", (60, 30))
        write(ImageDraw.Draw(picture), (2, 2), text, FACE, (255, 255, 255))
        return picture.tobytes()

    assert len({drawn(letter) for letter in "ñúХλשع"}) == 6


def test_a_contact_sheet_takes_any_letters() -> None:
    tile = Tile(Image.new("RGB", (200, 60)), "ñ猫\ud800", "🦜\n", "שלום")
    plain = Tile(Image.new("RGB", (200, 60)), "nU+732B U+D800", "‹parrot›", "x")
    one, other = (np.asarray(contact_sheet([each], 1, "ñ\x00", "中")) for each in (tile, plain))
    assert one.shape == other.shape and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", "\\xf1  \\u732b U+D800 U+001B [2J\n  x\n"), ("utf-8", "ñ  猫 U+D800 U+001B [2J\n  x\n")],
)
def test_any_letters_are_printed_in_any_locale(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding=encoding))
    say("ñ  猫\ud800\x1b[2J\n  x")
    assert file.getvalue().decode(encoding) == shown
