from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from handlers.wire.errors import RequestError
from handlers.wire.rle import read, write

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
