"""Instances drawn over their photo."""

from __future__ import annotations

import numpy as np
import pytest

from imagexplain.vision.instance_overlay import OPACITY, tint

SHADE = (213, 94, 0)


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (40, 30), (600, 5)])
def test_a_colour_laid_over_a_mask(size: tuple[int, int]) -> None:
    """The part is a view of a larger picture, of which nothing else changes."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (size[0] + 3, size[1] + 2, 3), dtype=np.uint8)
    mask = rng.random(size) < 0.5
    wanted = picture.astype(np.float32)
    inner = wanted[2:-1, 1:-1]
    inner[mask] = np.rint(inner[mask] * (1 - OPACITY) + np.array(SHADE, dtype=np.float32) * OPACITY)
    tint(picture[2:-1, 1:-1], mask, SHADE)
    assert np.array_equal(picture, wanted.astype(np.uint8))


def test_a_colour_over_every_level_by_hand() -> None:
    """0 and 255 under 40 % of a colour of 200, 100 and 0."""
    picture = np.array([[[0, 0, 0], [255, 255, 255], [9, 9, 9]]], dtype=np.uint8)
    tint(picture, np.array([[True, True, False]]), (200, 100, 0))
    assert picture.tolist() == [[[80, 40, 0], [233, 193, 153], [9, 9, 9]]]


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
def test_no_pixels(size: tuple[int, int]) -> None:
    picture = np.full((5, 5, 3), 7, dtype=np.uint8)
    tint(picture[: size[0], : size[1]], np.zeros(size, dtype=np.bool_), SHADE)
    assert (picture == 7).all()
