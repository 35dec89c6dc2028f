"""Masks brought into the frame of a model that crops or resizes, against areas counted in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from imagexplain.limits import Limits
from imagexplain.vision.decode import decode
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.masks import ModelMasks, parse_masks, to_model
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_fields import Size
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.rle import write
from tests.wire.photos import encoded, label_map

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "lists": lambda mask: [mask.tolist()],
    "runs": lambda mask: [write(mask)],
    "label map": label_map,
}
PHOTOS = ((97, 131), (131, 97), (61, 240), (240, 61), (83, 83), (333, 500), (37, 53))
CROPS = tuple(
    fit(photo, Preprocess((side, side), (0, 0, 0), (1, 1, 1), "crop", fraction))
    for photo in PHOTOS
    for side, fraction in ((24, 0.875), (29, 0.95), (40, 0.9), (17, 0.77))
)
ORIENTATION = 0x0112


def overlaps(photo: int, resized: int, first: int, length: int) -> np.ndarray:
    """(length, photo) int64: how much of each photo pixel lies in each of the model's, in 1 / resized of a pixel."""
    own, of_photo = np.arange(length)[:, None] + first, np.arange(photo)
    until = np.minimum((own + 1) * photo, (of_photo + 1) * resized)
    return np.maximum(until - np.maximum(own * photo, of_photo * resized), 0)


def counted(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(H, W) int64 area of a mask over the whole photo in each of the model's pixels, by every pair of pixels."""
    top, left, height, width = geometry.box
    rows = overlaps(geometry.photo[0], geometry.resized[0], top, height)
    columns = overlaps(geometry.photo[1], geometry.resized[1], left, width)
    return rows @ mask.astype(np.int64) @ columns.T


def brought(mask: np.ndarray, geometry: Geometry, form: str = "runs") -> ModelMasks:
    return to_model(parse_masks(FORMS[form](mask), geometry.photo, Limits()), geometry)


def seen(geometry: Geometry) -> tuple[slice, slice]:
    """The photo's rows and columns of which the model sees anything."""
    ranges = []
    for axis in (0, 1):
        first, length = geometry.box[axis], geometry.box[axis + 2]
        photo, resized = geometry.photo[axis], geometry.resized[axis]
        ranges.append(slice(max(first, 0) * photo // resized, min(photo, -(-(first + length) * photo // resized))))
    return ranges[0], ranges[1]


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_outside_the_crop_is_gone_and_never_rescued(form: str) -> None:
    """All that the crop cuts off, up to its very edge, and rectangles of it: exactly 1, no residue."""
    tried = 0
    for geometry in CROPS:
        unseen = np.ones(geometry.photo, dtype=np.bool_)
        unseen[seen(geometry)] = False
        before = np.zeros_like(unseen)
        before[: seen(geometry)[0].start, :] = before[:, : seen(geometry)[1].start] = True
        for mask in (unseen, before):
            if mask.any():
                tried += 1
                found = brought(mask, geometry, form)
                assert found.cropped.tolist() == [1.0] and found.rescued == () and not found.masks.any(), geometry
    assert tried >= 50


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_inside_the_crop_loses_nothing(form: str) -> None:
    for geometry in CROPS:
        mask = np.zeros(geometry.photo, dtype=np.bool_)
        rows, columns = seen(geometry)
        mask[rows.start + 1 : rows.stop - 1, columns.start + 1 : columns.stop - 1] = True
        mask[::3, ::5] = False
        found = brought(mask, geometry, form)
        assert found.cropped.tolist() == [0.0] and found.masks.any(), geometry


def test_a_mask_that_the_crop_just_touches() -> None:
    """One pixel across the crop's edge is seen by what of it lies within, and the next one not at all."""
    for geometry in CROPS:
        rows, columns = seen(geometry)
        middle = ((rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2)
        for place in (
            (rows.start, middle[1]),
            (rows.stop - 1, middle[1]),
            (middle[0], columns.start),
            (middle[0], columns.stop - 1),
        ):
            mask = np.zeros(geometry.photo, dtype=np.bool_)
            mask[place] = True
            found, inside = brought(mask, geometry), counted(mask, geometry)
            whole = math.prod(geometry.resized)
            assert 0 < inside.sum() <= whole
            assert found.cropped.tolist() == [(whole - int(inside.sum())) / whole]
            assert found.masks.any() and bool(found.rescued) == (2 * inside.max() < geometry.pixel)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("form", FORMS)
def test_a_turned_photo_is_cropped_upright(form: str, orientation: int) -> None:
    """The mask is over the photo as it is seen: of its 90 × 60 pixels the crop cuts the upper and lower rows off."""
    turned = Image.new("RGB", (60, 90) if orientation in (1, 3) else (90, 60))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo = decode(encoded(turned, "JPEG", exif=exif), Limits())
    assert photo.size == (90, 60)
    _, geometry = apply(photo.image, Preprocess((29, 29), (0, 0, 0), (1, 1, 1), "crop", 0.95))
    for rows, share in ((slice(0, 16), 1.0), (slice(74, 90), 1.0), (slice(30, 50), 0.0)):
        mask = np.zeros(photo.size, dtype=np.bool_)
        mask[rows, 25:35] = True
        found = brought(mask, geometry, form)
        assert found.cropped.tolist() == [share] and found.rescued == () and bool(found.masks.any()) == (share == 0)


@st.composite
def masks_and_frames(draw: st.DrawFn) -> tuple[np.ndarray, Geometry]:
    sides = st.integers(1, 12)
    photo: Size = (draw(sides), draw(sides))
    resized: Size = (draw(sides), draw(sides))
    top, left = (draw(st.integers(0, side - 1)) for side in resized)
    height, width = draw(st.integers(1, resized[0] - top)), draw(st.integers(1, resized[1] - left))
    return draw(arrays(np.bool_, photo)), Geometry(photo, resized, (top, left, height, width))


@given(masks_and_frames(), st.sampled_from(sorted(FORMS)))
def test_areas_are_those_counted(case: tuple[np.ndarray, Geometry], form: str) -> None:
    """What is covered, what is cut off and what is rescued, without a rounding anywhere."""
    mask, geometry = case
    areas = counted(mask, geometry)
    inside, whole = int(areas.sum()), int(mask.sum()) * math.prod(geometry.resized)
    expected = 2 * areas >= geometry.pixel
    rescued = inside > 0 and not expected.any()
    if rescued:
        expected.flat[areas.argmax()] = True
    found = brought(mask, geometry, form)
    if form == "label map" and not whole:
        assert found.labels == ()
        return
    assert np.array_equal(found.masks[0].numpy(), expected)
    assert found.cropped.tolist() == [(whole - inside) / whole if whole else 0.0]
    assert bool(found.rescued) == rescued
    assert np.array_equal(geometry.coverage(mask).numpy(), areas / geometry.pixel)


def test_half_a_pixel_is_enough_whatever_the_size() -> None:
    """Halves of a photo that shrinks to an odd number of pixels: each covers the middle ones by one half."""
    for side in range(1, 40, 2):
        geometry = Geometry((2 * side, 2 * side), (side, side), (0, 0, side, side))
        mask = np.zeros(geometry.photo, dtype=np.bool_)
        mask[:side] = True  # ends in the middle of the model's pixel (side − 1) / 2
        for half in (mask, ~mask):
            found = brought(half, geometry)
            assert found.masks[0, side // 2].all() and int(found.masks.sum()) == side * (side + 1) // 2


def test_the_whole_photo_loses_what_the_crop_cuts_off() -> None:
    for geometry in CROPS:
        found = brought(np.ones(geometry.photo, dtype=np.bool_), geometry)
        assert found.masks.all()
        share = 1 - math.prod(geometry.box[2:]) / math.prod(geometry.resized)
        assert found.cropped.item() == pytest.approx(share, abs=1e-15)
