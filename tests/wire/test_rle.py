from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.vision.masks import parse_masks
from imagexplain.vision.rle import Runs, _packed, read, write

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


def by_coco(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def test_runs_by_hand() -> None:
    """Columns (0,1), (1,1), (0,0): one zero, three ones, two zeros."""
    mask = np.array([[0, 1, 0], [1, 1, 0]], dtype=bool)
    assert np.array_equal(read({"size": [2, 3], "counts": [1, 3, 2]}).mask(), mask)
    assert write(mask) == {"size": [2, 3], "counts": "132"}  # digits below 16 stand for themselves


def test_a_long_run_by_hand() -> None:
    """100 = 4 + 3·32: first digit 4 with the mark for more (4 + 32 + 48 = T), then 3 (3 + 48 = 3)."""
    assert write(np.zeros((10, 10), dtype=bool)) == {"size": [10, 10], "counts": "T3"}
    assert not read({"size": [10, 10], "counts": "T3"}).mask().any()


@given(MASKS)
def test_reads_and_writes_as_pycocotools(mask: np.ndarray) -> None:
    assert write(mask) == by_coco(mask)
    assert np.array_equal(read(by_coco(mask)).mask(), mask)
    assert np.array_equal(coco.decode(write(mask)).astype(bool), mask)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.999))
def test_long_masks_of_long_and_short_runs(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((7, 13)) < density, rng.integers(1, 50), axis=0)
    assert write(mask) == by_coco(mask)
    assert np.array_equal(read(by_coco(mask)).mask(), mask)


@given(MASKS)
def test_the_cut_out_holds_all_ones(mask: np.ndarray) -> None:
    columns, first = read(write(mask)).cut_out()
    assert columns.sum() == mask.sum()
    assert np.array_equal(mask[:, first : first + columns.shape[1]], columns)
    if mask.any():
        assert columns[:, 0].any() and columns[:, -1].any()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"counts": [4]}, "size as [height, width]"),
        ({"size": [2], "counts": [4]}, "[2]"),
        ({"size": [2, 0], "counts": []}, "[2, 0]"),
        ({"size": [2, 2.0], "counts": [4]}, "2.0"),
        ({"size": [True, 2], "counts": [4]}, "True"),
        ({"size": [2**20, 2**20], "counts": [4]}, "2^31"),
        ({"size": [2, 2]}, "counts as text or as a list"),
        ({"size": [2, 2], "counts": {"a": 1}}, "counts as text or as a list"),
        ({"size": [2, 2], "counts": [5]}, "2 × 2 = 4, got 5"),
        ({"size": [2, 2], "counts": []}, "got 0"),
        ({"size": [2, 2], "counts": [5, -1]}, "-1"),
        ({"size": [2, 2], "counts": [4.0]}, "4.0"),
        ({"size": [2, 2], "counts": [2**70]}, "run lengths"),
        ({"size": [2, 2], "counts": ""}, "got 0"),
        ({"size": [2, 2], "counts": "5"}, "got 5"),
        ({"size": [2, 2], "counts": "T"}, "cut off"),
        ({"size": [2, 2], "counts": "4 "}, "' '"),
        ({"size": [2, 2], "counts": "4~"}, "'~'"),
        ({"size": [2, 2], "counts": "4é"}, "ASCII"),
        ({"size": [2, 2], "counts": "P" * 20 + "0"}, "at most 7 digits"),
        ({"size": [2, 2], "counts": "5O"}, "-1"),
    ],
)
def test_what_is_no_mask(value: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(value)
    assert (caught.value.status, caught.value.field) == (400, "masks")
    assert words in caught.value.message


@given(st.binary(max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_no_bytes_break_it(counts: bytes, height: int, width: int) -> None:
    value = {"size": [height, width], "counts": counts}
    try:
        runs = read(value)
    except RequestError:
        return
    assert runs.mask().shape == (height, width)


@given(MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_cut_out_is_written_as_its_whole(mask: np.ndarray, top: int, left: int, below: int, right: int) -> None:
    photo = np.pad(mask, ((top, below), (left, right)))
    assert write(mask, (top, left), photo.shape) == by_coco(photo)


def wrapping(area: int, step: int) -> str:
    """Packed counts, all positive, whose sum is the area and 2^64: the ones grow by ``step``, the zeros fill up."""
    number = next(n for n in range(1, 2**20) if (n + 1) * (n + 2) // 2 * step > 2**64)
    counts = np.zeros(2 * number, dtype=np.int64)
    counts[1::2] = step * np.arange(1, number + 1)
    zeros, rest = divmod(2**64 + area - step * number * (number + 1) // 2, number)
    counts[::2] = zeros
    counts[-2] += rest
    assert sum(counts.tolist()) == 2**64 + area and int(counts.sum()) == area
    return _packed(counts)


@pytest.mark.parametrize(
    ("step", "words"), [(2**33, "run lengths below 2^31"), (2**30, "in one of them")], ids=["far", "near"]
)
def test_counts_whose_sum_wraps_to_the_area(step: int, words: str) -> None:
    """Either a difference is too long, or what the differences add up to: nothing is drawn of 2^46 ones."""
    size = (1000, 1000)
    with pytest.raises(RequestError) as caught:
        read({"size": list(size), "counts": wrapping(size[0] * size[1], step)})
    assert (caught.value.status, caught.value.field) == (400, "masks")
    assert words in caught.value.message


def never_drawn(*_: object) -> None:
    raise AssertionError("nothing of this mask is to be drawn")


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ({"size": [4, 6], "counts": [0, 25]}, 400, "4 × 6 = 24, got 25"),
        ({"size": [4, 6], "counts": [0, 2**31 - 1]}, 400, "4 × 6 = 24, got 2147483647"),
        ({"size": [4, 6], "counts": [2**31 - 1] * 20}, 400, "4 × 6 = 24, got 2147483647"),
        ({"size": [4, 6], "counts": [0, 2**31]}, 400, "whole numbers from 0, got 2147483648"),
        ({"size": [4, 6], "counts": [0, 2**64 + 24]}, 400, "whole numbers from 0"),
        ({"size": [4, 6], "counts": [24, None]}, 400, "whole numbers from 0, got None"),
        ({"size": [4, 6], "counts": [26, -2]}, 400, "whole numbers from 0, got -2"),
        ({"size": [4, 6], "counts": _packed(np.array([0, 25]))}, 400, "4 × 6 = 24, got 25"),
        ({"size": [4, 6], "counts": _packed(np.array([0, 2**31 - 1]))}, 400, "4 × 6 = 24, got 2147483647"),
        ({"size": [4, 6], "counts": _packed(np.array([0, 2**33]))}, 400, "below 2^31, got 8589934592"),
        ({"size": [4, 6], "counts": _packed(np.array([26, -2]))}, 400, "run lengths from 0, got -2"),
        ({"size": [4, 6], "counts": _packed(np.array([9, 20, 0, -5]))}, 400, "run lengths from 0, got -5"),
        ({"size": [4, 6], "counts": [1] * 24 + [0, 0]}, 400, "at most 25 runs of a mask of 24 pixels, got 26"),
        ({"size": [4, 6], "counts": _packed(np.array([24] + [0] * 25))}, 400, "of a mask of 24 pixels, got 26"),
        ({"size": [6, 4], "counts": "~"}, 422, "4 rows and 6 columns, got 6 and 4"),
        ({"size": [46340, 46340], "counts": [0, 46340**2]}, 422, "got 46340 and 46340"),
        ({"size": [2**62, 2**62], "counts": [0]}, 422, "4 rows and 6 columns"),
        ({"size": [10**4000, 1], "counts": [0]}, 422, "4 rows and 6 columns"),
    ],
)
def test_every_run_is_bounded_by_the_photo(
    value: dict[str, Any], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that is not the photo's is refused before the counts are looked at, a run before it takes memory."""
    monkeypatch.setattr(Runs, "cut_out", never_drawn)
    monkeypatch.setattr(np, "cumsum", np.cumsum if isinstance(value["counts"], str) else never_drawn)
    with pytest.raises(RequestError) as caught:
        parse_masks([value], (4, 6), Limits())
    assert (caught.value.status, caught.value.field) == (status, "masks")
    assert words in caught.value.message


def test_no_more_runs_than_the_limit_in_all_masks() -> None:
    stripes = {"size": [2, 4], "counts": [1] * 8}
    limits = Limits(max_runs=17)
    assert len(parse_masks([stripes] * 2, (2, 4), limits).labels) == 2
    with pytest.raises(RequestError, match="at most 1 runs, got 8") as caught:
        parse_masks([stripes] * 3, (2, 4), limits)
    assert caught.value.status == 413
    with pytest.raises(RequestError, match="at most 1 runs, got 8"):
        parse_masks([stripes] * 2 + [{"size": [2, 4], "counts": "1" * 8}], (2, 4), limits)


INTEGERS = st.integers(-(2**70), 2**70) | st.integers(-3, 30)
GARBAGE = st.none() | st.booleans() | st.floats() | INTEGERS | st.text(max_size=9)


@given(
    st.lists(st.integers(-1, 8) | INTEGERS | GARBAGE, max_size=3) | GARBAGE,
    st.lists(st.integers(0, 9), max_size=9)
    | st.lists(GARBAGE, max_size=9)
    | st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40)
    | st.lists(st.integers(-(2**34), 2**34), max_size=9).map(lambda values: _packed(np.array(values, dtype=np.int64)))
    | GARBAGE,
)
def test_no_garbage_breaks_it(size: object, counts: object) -> None:
    try:
        runs = read({"size": size, "counts": counts}, photo=(3, 4))
    except RequestError:
        return
    assert runs.size == (3, 4) and runs.counts.min() >= 0 and sum(runs.counts.tolist()) == 12
    assert runs.mask().shape == (3, 4)


@given(MASKS)
def test_the_rectangles_are_the_mask(mask: np.ndarray) -> None:
    """Disjoint, not empty, and together the ones that pycocotools reads."""
    rectangles = read(by_coco(mask), photo=mask.shape).rectangles()
    drawn = np.zeros(mask.shape, dtype=int)
    edges = (rectangles.top, rectangles.bottom, rectangles.left, rectangles.right)
    for top, bottom, left, right in zip(*(edge.tolist() for edge in edges), strict=True):
        assert top < bottom and left < right
        drawn[top:bottom, left:right] += 1
    assert np.array_equal(drawn, mask)
    assert rectangles.area == mask.sum()
