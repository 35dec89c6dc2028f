"""Photos that do not fill the model's input: masks, maps and labels in photo coordinates, and the padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from imagexplain.limits import Limits
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.heatmap import overlay, seen
from imagexplain.vision.masks import of_cut_outs, parse_masks, to_model
from imagexplain.vision.preprocess import ModelInput, apply, see
from imagexplain.vision.preprocess_fields import PadMode
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.rectangles import of_mask
from tests.wire.photos import label_map, noise_photo

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=15))
NONE, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def padded_to(height: int, width: int, **fields: Any) -> Preprocess:
    """Preprocessing that pads, and changes no value."""
    return Preprocess((height, width), NONE, ONE, **{"fit": "pad", **fields})


def test_geometry_by_hand() -> None:
    # 20 × 50 to a width of 10: 4 × 10, between 3 rows of padding above and below.
    assert fit((20, 50), padded_to(10, 10)) == Geometry((20, 50), (4, 10), (-3, 0, 10, 10))
    # A height of 5 leaves 5 rows: 2 above, 3 below, or the other way round, or all of them below.
    assert fit((25, 50), padded_to(10, 10)).box == (-2, 0, 10, 10)
    assert fit((25, 50), padded_to(10, 10, pad_extra="before")).box == (-3, 0, 10, 10)
    assert fit((25, 50), padded_to(10, 10, pad_position="top_left")).box == (0, 0, 10, 10)
    # With a fraction the longer side hangs over: 8 × 20, of which the middle 10 columns are seen.
    assert fit((20, 50), padded_to(10, 10, crop_fraction=0.5)) == Geometry((20, 50), (8, 20), (-1, 5, 10, 10))
    assert fit((50, 20), padded_to(8, 6)) == Geometry((50, 20), (8, 3), (0, -1, 8, 6))


def test_a_thread_of_a_photo_can_be_padded() -> None:
    image, geometry = apply(noise_photo(2, 1001), padded_to(16, 16))
    assert image.shape == (3, 16, 16) and geometry.resized == (1, 16)


def test_what_is_photo_and_what_is_padding() -> None:
    geometry = Geometry((20, 50), (4, 10), (-3, 0, 10, 10))
    assert geometry.inside == (slice(3, 7), slice(0, 10)) and geometry.padded
    assert seen(geometry) == (slice(0, 20), slice(0, 50))
    cropped = Geometry((4, 8), (2, 4), (0, 1, 2, 2))
    assert cropped.inside == (slice(0, 2), slice(0, 2)) and not cropped.padded


@given(MASKS, st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.5, 0.875, 1.0]), st.booleans())
def test_areas_are_exact(mask: np.ndarray, height: int, width: int, fraction: float, corner: bool) -> None:
    """Against the plainest count: in units of 1 / resized, every photo pixel is a block of whole units."""
    position = "top_left" if corner else "center"
    geometry = fit(mask.shape, padded_to(height, width, crop_fraction=fraction, pad_position=position))
    fine = np.kron(mask, np.ones(geometry.resized, dtype=np.int64))
    whole = np.pad(fine, [(height * mask.shape[0],) * 2, (width * mask.shape[1],) * 2])
    top, left = ((geometry.box[axis] + geometry.box[axis + 2]) * mask.shape[axis] for axis in (0, 1))
    whole = whole[top : top + height * mask.shape[0], left : left + width * mask.shape[1]]
    expected = whole.reshape(height, mask.shape[0], width, mask.shape[1]).sum((1, 3))
    areas, (row, column) = geometry.areas(of_mask(mask))
    got = np.zeros((height, width), dtype=np.int64)
    got[row : row + areas.shape[0], column : column + areas.shape[1]] = areas
    assert np.array_equal(got, expected)


def test_a_mask_of_all_is_the_photo_without_the_padding() -> None:
    geometry = fit((20, 50), padded_to(10, 10))
    masks = to_model(parse_masks(label_map(np.ones((20, 50))), (20, 50), Limits()), geometry)
    rows, columns = geometry.inside
    assert masks.masks[0, rows, columns].all() and masks.masks.sum() == 40
    assert masks.cropped.tolist() == [0.0] and masks.rescued == ()
    assert len(to_model(of_cut_outs([], (20, 50), []), geometry).masks) == 0


def test_a_map_of_padding_alone_is_not_drawn() -> None:
    values = torch.ones(10, 10)
    values[3:7] = 0
    geometry = Geometry((20, 50), (4, 10), (-3, 0, 10, 10))
    assert not geometry.to_photo(values).any() and not geometry.to_photo(values, "bspline").any()
    assert torch.allclose(geometry.to_photo(1 - values), torch.ones(20, 50))
    # The cells of a coarse map that reach into the photo are.
    coarse = torch.tensor([[0.0], [1.0], [0.0]])
    assert geometry.to_photo(coarse).min() > 0.4 and geometry.to_photo(coarse).max() > 0.9


def test_labels_and_marks_return_to_their_place() -> None:
    pixels = np.zeros((60, 150, 3), dtype=np.uint8)
    pixels[20:40, 100:130] = 255
    image, geometry = apply(Image.fromarray(pixels), padded_to(48, 48))
    rows, columns = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(150) + 0.5, indexing="ij")
    for drawn in (geometry.to_photo(image.mean(0)), geometry.labels_to_photo((image[0] > 0.5).long(), -1).float()):
        assert (drawn * rows).sum() / drawn.sum() == pytest.approx(30, abs=0.5)
        assert (drawn * columns).sum() / drawn.sum() == pytest.approx(115, abs=0.5)
    assert geometry.labels_to_photo(torch.zeros(48, 48, dtype=torch.int64), -1).eq(0).all()
    picture = np.asarray(overlay(Image.fromarray(pixels), image, geometry)).astype(int)
    assert picture[22:38, 102:128, 0].min() > picture[22:38, 102:128, 2].max()


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (3, 40)])
@pytest.mark.parametrize("fraction", [1.0, 0.8])
def test_another_photo_is_padded_alike(mode: PadMode, shape: tuple[int, int], fraction: float) -> None:
    settings = padded_to(24, 18, pad_mode=mode, pad_value=90.0 if mode == "constant" else 0.0, crop_fraction=fraction)
    one, other = (see(noise_photo(*shape, seed=seed), settings) for seed in (0, 1))
    assert torch.equal(one.with_photo(other.of_photo(other.image)), other.image)
    several = torch.stack([one.image, other.image])
    assert torch.equal(one.with_photo(one.of_photo(several)), several)


def test_masks_over_the_photo_are_none_of_the_padding() -> None:
    seen_photo = see(noise_photo(20, 50), padded_to(10, 10))
    masks = seen_photo.over_padding(torch.ones(2, 4, 10, dtype=torch.bool))
    assert masks.shape == (2, 10, 10) and masks.sum().item() == 80
    assert masks[:, 3:7].all()


# Colours


def blank(value: int, **fields: Any) -> ModelInput:
    """A photo of one grey."""
    return see(Image.new("RGB", (30, 20), (value,) * 3), Preprocess(**{"size": (8, 8), **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)},
        {"channels": "bgr", "scale": 255.0, "mean": (104.0, 117.0, 124.0), "std": ONE},
        {"channels": "grey", "mean": (0.13,), "std": (0.3,)},
        {"channels": "rgba", "mean": (0.5,) * 4, "std": (0.25,) * 4},
    ],
)
def test_black_and_white_are_what_the_model_sees(fields: dict[str, Any]) -> None:
    for value, name in ((0, 0.0), (255, 1.0)):
        found = blank(value, **fields)
        torch.testing.assert_close(found.image, found.preprocess.grey(name), rtol=0, atol=1e-5)
        assert found.preprocess.picture(found.image).unique().tolist() == [value]


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": "bgr", "scale": 255.0, "mean": (104.0, 117.0, 124.0), "std": (60.0,) * 3},
        {"standardize": True, "mean": NONE, "std": ONE},
        {"standardize": "channel", "mean": NONE, "std": ONE, "scale": 255.0, "channels": "bgr"},
        {"channels": "rgba", "mean": (0.5,) * 4, "std": (0.25,) * 4},
    ],
)
def test_pictures_are_as_the_eye_sees_them(fields: dict[str, Any]) -> None:
    photo = noise_photo(12, 10)
    found = see(photo, Preprocess((12, 10), **fields))
    assert torch.equal(found.preprocess.picture(found.image), torch.from_numpy(np.array(photo)))


def test_a_grey_picture_and_alpha_over_white() -> None:
    photo = noise_photo(12, 10)
    grey = see(photo, Preprocess((12, 10), (0.5,), (0.5,), channels="grey"))
    assert torch.equal(
        grey.preprocess.picture(grey.image), torch.from_numpy(np.array(photo.convert("L").convert("RGB")))
    )
    photo.putalpha(128)
    alpha = see(photo, Preprocess((12, 10), (0.5,) * 4, (0.5,) * 4, channels="rgba"))
    over = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
    difference = alpha.preprocess.picture(alpha.image).int() - torch.from_numpy(np.array(over)).int()
    assert difference.abs().max() <= 1  # both round


def test_black_of_a_standardised_photo_is_black_under_its_own_contrast() -> None:
    settings = Preprocess((8, 8), NONE, ONE, standardize=True)
    photo = noise_photo(8, 8)
    found = see(photo, settings)
    values = torch.from_numpy(np.array(photo)).double() / 255
    black = -values.mean() / values.std(correction=0)
    torch.testing.assert_close(found.preprocess.grey(0.0).double().unique(), black[None], rtol=0, atol=1e-6)
    assert not blank(0, mean=NONE, std=ONE, standardize=True).image.any()  # a black photo itself has no contrast
    with pytest.raises(ValueError, match="standardize: "):
        settings.grey(0.0)
