"""Pictures of attributions by their settings, on a map whose left half supports and whose right half opposes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from imagexplain.vision.attribution_picture import AttributionPicture, ColourMap, Overlay, Polarity
from imagexplain.vision.geometry import Geometry

SIDE = 40
PHOTO = Image.new("RGB", (SIDE, SIDE), (90, 120, 150))
WHOLE = Geometry((SIDE, SIDE), (SIDE, SIDE), (0, 0, SIDE, SIDE))
RAMP = torch.linspace(1, -1, SIDE).expand(1, SIDE, SIDE)


def drawn(style: str = "pixels", geometry: Geometry = WHOLE, **settings: object) -> np.ndarray:
    picture = AttributionPicture(style=style, **settings)  # type: ignore[arg-type]
    return np.asarray(picture.draw(PHOTO, RAMP, geometry)).astype(int)


@pytest.mark.parametrize("polarity", get_args(Polarity))
def test_a_polarity_shows_its_sign(polarity: Polarity) -> None:
    picture = drawn(polarity=polarity, clip=(0, 100))
    left, right = picture[:, : SIDE // 2 - 2].max(-1) > 0, picture[:, SIDE // 2 + 2 :].max(-1) > 0
    assert left.all() == left.any() == (polarity != "negative")
    assert right.all() == right.any() == (polarity != "positive")


def test_percentiles_bound_what_is_shown_and_what_is_full() -> None:
    for low in (25, 50, 75):
        shown = drawn(polarity="both", clip=(low, 100)).max(-1) > 0
        assert shown.mean() == pytest.approx(1 - low / 100, abs=0.06)
    full = drawn(polarity="both", clip=(0, 50), colours="green")[..., 1]
    assert (full == full.max()).mean() == pytest.approx(0.5, abs=0.06)


def test_each_colour_map_has_its_ends() -> None:
    ends = {name: drawn(polarity="both", colours=name, clip=(0, 99))[0, [0, -1]] for name in get_args(ColourMap)}
    assert {name: tuple(map(tuple, own.tolist())) for name, own in ends.items()} == {
        "pink_green": ((0, 200, 0), (255, 0, 200)),
        "viridis": ((253, 231, 37), (68, 1, 84)),
        "red": ((230, 0, 0), (230, 0, 0)),
        "green": ((0, 200, 0), (0, 200, 0)),
        "pink_white_green": ((39, 100, 25), (142, 1, 82)),
        "red_green": ((0, 200, 0), (230, 0, 0)),
    }


@pytest.mark.parametrize("overlay", get_args(Overlay))
def test_the_ground_is_seen_where_nothing_is_shown(overlay: Overlay) -> None:
    grounds = {"none": (0, 0, 0), "mask_black": (0, 0, 0), "original": (90, 120, 150), "greyscale": (114, 114, 114)}
    for style in ("pixels", "outlines"):
        picture = drawn(style, overlay=overlay, clip=(80, 100))
        assert tuple(picture[SIDE // 2, -1]) == grounds[overlay]
    assert tuple(drawn("outlines", overlay="mask_black", clip=(80, 100))[SIDE // 2, 1]) == (90, 120, 150)


def test_outlines_enclose_regions_of_each_sign() -> None:
    picture = drawn("outlines", polarity="both", clip=(50, 100))
    green, pink = (picture == (0, 200, 0)).all(-1), (picture == (255, 0, 200)).all(-1)
    assert (
        green[5:-5, 0].all()
        and pink[5:-5, -1].all()
        and not (green[:, SIDE // 2 :].any() or pink[:, : SIDE // 2].any())
    )
    assert not green[5:-5, 3:6].any()  # within


def test_nothing_is_shown_beyond_the_models_view_nor_of_a_map_of_zeros() -> None:
    middle = Geometry((SIDE, SIDE), (SIDE, SIDE), (10, 10, 20, 20))
    picture = drawn(geometry=middle, polarity="both", clip=(0, 100))
    assert not picture[:9].any() and not picture[:, 32:].any() and picture[11:29, 11:15].any()
    nothing = AttributionPicture(overlay="original").draw(PHOTO, torch.zeros(3, 8, 8), WHOLE)
    assert np.array_equal(np.asarray(nothing), np.asarray(PHOTO))
