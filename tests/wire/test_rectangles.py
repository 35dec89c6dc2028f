from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco

from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.vision import rle
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.masks import parse_masks, to_model
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.rectangles import Rectangles, of_labels, of_mask
from tests.wire.photos import encoded

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20))


def coverage(shape: Rectangles, size: tuple[int, int]) -> np.ndarray:
    """How many rectangles lie over each pixel, by a loop."""
    count = np.zeros(size, dtype=int)
    for top, bottom, left, right in zip(shape.top, shape.bottom, shape.left, shape.right, strict=True):
        count[top:bottom, left:right] += 1
    return count


@given(MASKS)
def test_rectangles_are_the_mask(mask: np.ndarray) -> None:
    for shape in (of_mask(mask), rle.read(rle.write(mask)).rectangles()):
        assert np.array_equal(coverage(shape, mask.shape), mask)
        assert shape.area == mask.sum()
        cut_out = shape.cut_out()
        again = np.zeros_like(mask)
        again[cut_out.window] = cut_out.mask
        assert np.array_equal(again, mask)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 3)))
def test_runs_of_labels(labels: np.ndarray) -> None:
    shape, values = of_labels(labels)
    for value in (1, 2, 3):
        assert np.array_equal(coverage(shape.where(values == value), labels.shape), labels == value)
    assert 0 not in values


@given(
    MASKS,
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["stretch", "crop"]),
    st.sampled_from([0.5, 0.875, 1.0]),
)
def test_areas_are_exact(mask: np.ndarray, height: int, width: int, how: Any, fraction: float) -> None:
    """Against the plainest count: in units of 1 / resized, every photo pixel is a block of whole units."""
    geometry = fit(mask.shape, Preprocess((height, width), (0, 0, 0), (1, 1, 1), how, fraction))
    fine = np.kron(mask, np.ones(geometry.resized, dtype=np.int64))  # photo pixels times resized, on each side
    top, left = geometry.box[0] * mask.shape[0], geometry.box[1] * mask.shape[1]
    fine = fine[top : top + height * mask.shape[0], left : left + width * mask.shape[1]]
    expected = fine.reshape(height, mask.shape[0], width, mask.shape[1]).sum((1, 3))
    areas, (row, column) = geometry.areas(of_mask(mask))
    got = np.zeros((height, width), dtype=np.int64)
    got[row : row + areas.shape[0], column : column + areas.shape[1]] = areas
    assert np.array_equal(got, expected)


@given(st.integers(30, 90), st.integers(91, 200), st.sampled_from([0.7, 0.875, 1.0]), st.booleans())
def test_a_mask_outside_the_crop_is_dropped_and_reported_so(short: int, long: int, part: float, as_list: bool) -> None:
    """The photo lies on its side; rounding residue once was coverage, and lit a pixel at random."""
    geometry = fit((short, long), Preprocess((24, 24), (0, 0, 0), (1, 1, 1), "crop", part))
    first = int(geometry.box[1] * long / geometry.resized[1])  # columns wholly left of the frame
    outside = np.zeros((short, long), dtype=bool)
    outside[:, : max(first, 0)] = np.random.default_rng(short).random((short, first)) < 0.5
    inside = np.zeros((short, long), dtype=bool)
    inside[short // 2, long // 2] = True
    sent: Any = [mask.tolist() for mask in (outside, inside)] if as_list else list(map(rle.write, (outside, inside)))
    found = to_model(parse_masks(sent, (short, long), Limits()), geometry)
    assert not found.masks[0].any() and found.masks[1].any()
    assert "segment 1" not in found.rescued
    assert found.cropped.tolist() == [1.0 if outside.any() else 0.0, 0.0]


def test_the_centre_of_a_pixel_on_an_edge_belongs_to_the_next_square() -> None:
    """Exactly, whatever 1 / 3 is rounded to: centres of 9 pixels onto 3k squares."""
    for photo, resized in ((3, 2), (9, 6), (49, 98), (7 * 3, 2 * 7), (441, 294)):
        geometry = Geometry((photo, 1), (resized, 1), (0, 0, resized, 1))
        got = geometry.labels_to_photo(torch.arange(resized)[:, None], outside=-1)[:, 0].tolist()
        assert got == [(2 * pixel + 1) * resized // (2 * photo) for pixel in range(photo)]


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ({"size": [4, 4], "counts": [2**30] * 4}, 400, "sum to 4 × 4"),
        ({"size": [4, 4], "counts": [0] * 18}, 400, "at most 17 runs"),
        ({"size": [4, 4], "counts": "0" * 18}, 400, "at most 17 runs"),
        ({"size": [4, 4], "counts": "0" * 40}, 413, "at most 30 runs"),
        ({"size": [4, 4], "counts": [0] * 40}, 413, "at most 30 runs"),
        ({"size": [2**31 - 1, 1], "counts": [2**31 - 1]}, 422, "4 rows and 4 columns"),
        ({"size": [10**30, 1], "counts": [4]}, 422, "4 rows and 4 columns"),
        ({"size": [4, 4], "counts": "ooooooO"}, 400, ""),
        ({"size": [4, 4], "counts": "PPPPPP8" * 9}, 400, "below 2^31"),
    ],
)
def test_counts_are_bounded_before_they_are_added_up(value: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        rle.read(value, photo=(4, 4), most=30)
    assert (caught.value.status, caught.value.field) == (status, "masks") and words in caught.value.message


def packed(*numbers: int) -> str:
    """Numbers as pycocotools packs them, differences already taken."""
    text = ""
    for number in numbers:
        more = True
        while more:
            digit, number = number & 31, number >> 5
            more = number != (-1 if digit & 16 else 0)
            text += chr(48 + (digit | 32 if more else digit))
    return text


def test_a_sum_that_wraps_is_no_sum() -> None:
    """Runs that rise to 46,340 · 2^33 and fall again, two of them twice: with the first, 2^64 + 250,000 in all.

    46,340² + 46,340 + 41,708 = 2^31, in units of 2^33.
    """
    top, twice = 46_340, 41_708
    levels = [*range(1, twice + 1), *range(twice, top + 1), *range(top, 0, -1)]
    counts = [250_000, *(count for level in levels for count in (0, level << 33))]
    assert sum(counts) == 2**64 + 250_000
    text = packed(*counts[:3], *(count - before for count, before in zip(counts[3:], counts[1:], strict=False)))
    tracemalloc.start()
    with pytest.raises(RequestError, match="below 2\\^31"):
        rle.read({"size": [500, 500], "counts": text})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.integers(-40, 2**36), max_size=12), st.binary(max_size=20))
def test_what_is_accepted_is_what_pycocotools_reads(height: int, width: int, numbers: list[int], raw: bytes) -> None:
    for counts in (packed(*numbers).encode(), raw):
        value = {"size": [height, width], "counts": counts}
        try:
            runs = rle.read(value)
        except RequestError:
            continue
        assert runs.counts.min() >= 0 and runs.counts.sum() == height * width
        assert np.array_equal(runs.mask(), coco.decode(value).astype(bool))


@pytest.mark.parametrize("form", ["runs", "labels", "lists"])
def test_runs_of_all_masks_are_bounded_together(form: str) -> None:
    """Stripes of ten rows: ten runs each along the rows; along the columns eleven with the zeros before them."""
    stripes = np.zeros((20, 3), dtype=bool)
    stripes[::2] = True
    sent: Any = {
        "runs": [rle.write(stripes)] * 3,
        "labels": encoded(Image.fromarray(stripes.astype(np.uint8))),
        "lists": [stripes.tolist()] * 3,
    }[form]
    enough = {"runs": 3 * 61, "labels": 10, "lists": 30}[form]
    assert len(parse_masks(sent, (20, 3), Limits(max_runs=enough)).labels) in (1, 3)
    with pytest.raises(RequestError) as caught:
        parse_masks(sent, (20, 3), Limits(max_runs=enough - 2))
    assert (caught.value.status, caught.value.field) == (413, "masks") and "runs" in caught.value.message


def test_masks_of_a_large_photo_take_no_pictures() -> None:
    """Five hundred over 49 megapixels from 10 kB: once 2 s and 0.4 GB each."""
    side = 7000
    sent = [{"size": [side, side], "counts": [10, side * side - 20, 10]}] * 500
    geometry = fit((side, side), Preprocess((32, 32), (0, 0, 0), (1, 1, 1)))
    tracemalloc.start()
    found = to_model(parse_masks(sent, (side, side), Limits()), geometry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.masks.all() and peak < 20_000_000


def test_work_ends_between_two_masks() -> None:
    masks = parse_masks([rle.write(np.ones((4, 4), dtype=bool))] * 3, (4, 4), Limits())
    asked: list[int] = []

    def over() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise RequestError(503, "masks", "over")

    with pytest.raises(RequestError, match="over"):
        to_model(masks, Geometry((4, 4), (4, 4), (0, 0, 4, 4)), over)
    assert len(asked) == 2
