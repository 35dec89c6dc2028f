from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from imagexplain.vision.geometry import Geometry
from imagexplain.vision.heatmap import overlay, signed_map


def grey(height: int, width: int, value: int = 128) -> Image.Image:
    return Image.new("RGB", (width, height), (value, value, value))


def test_red_for_blue_against() -> None:
    attribution = torch.zeros(4, 4)
    attribution[:, :2], attribution[:, 2:] = 1, -1
    picture = np.asarray(overlay(grey(40, 60), attribution), dtype=int)
    assert picture.shape == (40, 60, 3)
    left, right = picture[20, 5], picture[20, -5]
    assert left[0] > left[2] + 50
    assert right[2] > right[0] + 50


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_map_of_nothing_leaves_the_faded_photo(value: float) -> None:
    picture = np.asarray(overlay(grey(10, 12), torch.full((3, 4, 4), value)))
    assert (picture == picture[0, 0, 0]).all()
    assert 128 < picture[0, 0, 0] < 255


def test_one_bad_value_does_not_spoil_the_map() -> None:
    attribution = torch.ones(8, 8)
    attribution[0, 0] = float("nan")
    picture = np.asarray(overlay(grey(16, 16), attribution), dtype=int)
    assert (picture[8:, 8:, 0] > picture[8:, 8:, 2] + 50).all()


def test_a_single_pixel_is_seen() -> None:
    attribution = torch.zeros(32, 32)
    attribution[16, 16] = 1e-9
    picture = np.asarray(overlay(grey(320, 320), attribution), dtype=int)
    assert picture[165, 165, 0] > picture[165, 165, 2] + 50


def test_scale_does_not_matter() -> None:
    attribution = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    one = np.asarray(overlay(grey(20, 20), attribution), dtype=int)
    other = np.asarray(overlay(grey(20, 20), attribution * 1024), dtype=int)
    assert np.array_equal(one, other)


def test_outside_the_crop_there_is_no_colour() -> None:
    geometry = Geometry((20, 40), (10, 20), (0, 5, 10, 10))
    picture = np.asarray(overlay(grey(20, 40), torch.ones(10, 10), geometry), dtype=int)
    assert np.ptp(picture[:, :10], axis=-1).max() == 0
    assert (picture[:, 10:30, 0] > picture[:, 10:30, 2] + 50).all()


def test_nothing_is_changed_in_place() -> None:
    photo, attribution = grey(10, 10), torch.randn(1, 3, 4, 4)
    before, kept = photo.tobytes(), attribution.clone()
    overlay(photo, attribution)
    assert photo.tobytes() == before
    assert torch.equal(attribution, kept)


def test_channels_are_summed_with_their_signs() -> None:
    attribution = torch.tensor([[[1.0, 2.0]], [[-1.0, 2.0]], [[0.0, -1.0]]])
    assert signed_map(attribution).tolist() == [[0.0, 3.0]]
    assert signed_map(attribution[None]).tolist() == [[0.0, 3.0]]
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\)"):
        signed_map(torch.zeros(2, 3, 4, 4))


def test_geometry_must_be_of_this_photo() -> None:
    with pytest.raises(ValueError, match="geometry"):
        overlay(grey(10, 10), torch.zeros(4, 4), Geometry((11, 10), (4, 4), (0, 0, 4, 4)))


def test_one_pixel_photo() -> None:
    assert overlay(grey(1, 1), torch.ones(3, 32, 32)).size == (1, 1)


def test_strips_leave_no_seams() -> None:
    """The picture is drawn in strips of rows; one drawn in a single strip is the same."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 40, 3), dtype=np.uint8))
    attribution = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    in_strips = np.asarray(overlay(photo, attribution))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imagexplain.vision.heatmap._STRIP", 10_000)
        assert np.array_equal(in_strips, np.asarray(overlay(photo, attribution)))
