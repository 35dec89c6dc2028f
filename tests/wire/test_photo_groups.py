"""Groups over the photo: their runs and labels, against masks that are drawn whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from torch import Tensor

from imagexplain.attribution.groups.families import family
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.vision import rle
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.mask_crops import crop_to_content
from imagexplain.vision.masks import PhotoMasks, Shape, of_cut_outs, parse_masks, to_model
from imagexplain.vision.photo_groups import PhotoGroups
from imagexplain.vision.preprocess_fields import Fit
from imagexplain.vision.preprocess_settings import Preprocess
from tests.wire.photos import label_map

WIDE = Geometry((4, 8), (2, 4), (0, 1, 2, 2))
"""The middle half of a photo of 4 × 8, each pixel of the model 2 × 2 of the photo's."""

SIDES = st.integers(1, 9)
SHAPES = st.tuples(SIDES, SIDES)
FITS: tuple[Fit, ...] = ("stretch", "crop", "pad")


def groups_of(geometry: Geometry, masks: Tensor, shapes: Sequence[Shape | None], max_runs: int = 10**6) -> PhotoGroups:
    """The groups of a request with these segments over the model's input."""
    own = family(masks, [str(number) for number in range(len(masks))])
    rows = [shapes[index] if index < len(shapes) else None for index in own.origins]
    return PhotoGroups(geometry, own.masks, own.kinds, rows, max_runs)


def sent(geometry: Geometry, masks: PhotoMasks, **bounds: int) -> PhotoGroups:
    """The groups of masks over the photo."""
    return groups_of(geometry, to_model(masks, geometry).masks, masks.shapes, **bounds)


def decoded(mask: dict[str, Any] | None) -> np.ndarray:
    """A run-length mask as pycocotools reads it."""
    assert mask is not None
    return coco.decode({**mask, "counts": mask["counts"].encode()}).astype(bool)


def drawn(text: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in line] for line in text.split()])


def test_what_is_made_in_the_models_frame_by_hand() -> None:
    masks = torch.tensor([[[True, False], [False, False]], [[False, True], [True, True]]])
    groups = groups_of(WIDE, masks, [None, None])
    assert groups.kinds == ("segment", "segment", "whole")
    first, second, whole = groups.segmentations
    assert whole is None and np.array_equal(decoded(first), drawn("..##.... ..##.... ........ ........"))
    assert np.array_equal(decoded(second), drawn("....##.. ....##.. ..####.. ..####.."))
    outside, labels = [-1, -1], groups.label_map
    upper, lower = [*outside, 0, 0, 1, 1, *outside], [*outside, 1, 1, 1, 1, *outside]
    assert labels.dtype == torch.int32 and labels.tolist() == [upper, upper, lower, lower]


def test_what_was_sent_is_itself_and_the_rest_is_what_it_leaves() -> None:
    masks = [drawn("####.... ####.... ........ ........"), drawn("...#.... ........ ........ ........")]
    groups = sent(WIDE, parse_masks([rle.write(mask) for mask in masks], (4, 8), Limits()))
    assert groups.kinds == ("segment", "rest", "whole")  # in the model's frame the two are the same pixel
    assert np.array_equal(decoded(groups.segmentations[0]), masks[0])
    assert np.array_equal(decoded(groups.segmentations[1]), drawn("....##.. ....##.. ..####.. ..####.."))
    masks[1] = drawn("..##.... ..##.... ..##.... ..##....")
    groups = sent(WIDE, parse_masks([rle.write(mask) for mask in masks], (4, 8), Limits()))
    row, below = [-1, -1, 0, 0, 2, 2, -1, -1], [-1, -1, 1, 1, 2, 2, -1, -1]
    assert groups.label_map.tolist() == [row, row, below, below]  # the first one is the smaller where the model looks


def test_a_photo_without_a_rest_leaves_no_pixel_without_a_group() -> None:
    mask = np.ones((4, 8), dtype=np.bool_)
    mask[0, 2] = False
    groups = sent(WIDE, parse_masks([rle.write(mask)], (4, 8), Limits()))
    assert groups.kinds == ("segment",)
    assert np.array_equal(decoded(groups.segmentations[0]), mask)
    assert groups.label_map[0].tolist() == [-1, -1, 0, 0, 0, 0, -1, -1]


def geometries(photo: tuple[int, int]) -> st.SearchStrategy[Geometry]:
    """Ways to bring a photo into the frame of a model."""
    side = st.integers(1, 7)
    return st.builds(
        lambda height, width, how, part: fit(
            photo, Preprocess((height, width), (0, 0, 0), (1, 1, 1), how, part if how == "crop" else 1.0)
        ),
        side,
        side,
        st.sampled_from(FITS),
        st.sampled_from([0.6, 1.0]),
    )


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_labels_and_runs_are_those_of_the_drawn_map(data: st.DataObject) -> None:
    photo = data.draw(SHAPES)
    geometry = data.draw(geometries(photo))
    labels = torch.from_numpy(data.draw(arrays(np.int64, geometry.box[2:], elements=st.integers(0, 4))))
    masks = torch.stack([labels == value for value in range(4)])  # 4 is the rest
    groups = groups_of(geometry, masks, [None] * 4)
    rows = [number for number, index in enumerate(masks.flatten(1).any(1).tolist()) if index]
    place = torch.tensor([*(rows.index(value) if value in rows else 0 for value in range(4)), len(rows)])
    expected = geometry.labels_to_photo(place[labels], -1).numpy()
    assert np.array_equal(groups.label_map.numpy(), expected)
    for row, mask in enumerate(groups.segmentations):
        if groups.kinds[row] != "whole":
            assert np.array_equal(decoded(mask), expected == row)
    assert groups.runs == sum(
        rle.count_column_runs(decoded(mask))
        for mask, kind in zip(groups.segmentations, groups.kinds, strict=True)
        if kind == "segment"
    )


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_masks_over_the_photo_are_kept_in_whatever_form_they_came(data: st.DataObject) -> None:
    photo = data.draw(SHAPES)
    geometry = data.draw(geometries(photo))
    masks = data.draw(st.lists(arrays(np.bool_, photo), min_size=1, max_size=3))
    forms = (
        parse_masks([rle.write(mask) for mask in masks], photo, Limits()),
        parse_masks([mask.tolist() for mask in masks], photo, Limits()),
        of_cut_outs([crop_to_content(mask) for mask in masks], photo, [str(number) for number in range(len(masks))]),
    )
    rows, columns = geometry.pixels
    view = ((rows >= 0)[:, None] & (columns >= 0)).numpy()
    for form in forms:
        groups = sent(geometry, form)
        own = family(to_model(form, geometry).masks, form.labels)
        kept = [masks[index] for index in own.origins if index < len(masks)]
        expected = np.where(view, len(groups.kinds) - 1, -1)
        if "rest" in groups.kinds:
            rest = view & ~np.any(kept, axis=0) if kept else view
            assert np.array_equal(decoded(groups.segmentations[len(kept)]), rest)
            expected[view] = len(kept)
        elif "whole" not in groups.kinds:
            expected[view] = next(row for row, mask in enumerate(own.masks) if mask.all())
        for row in sorted(range(len(kept)), key=lambda row: (-(kept[row] & view).sum(), -row)):
            expected[kept[row] & view] = row
            assert np.array_equal(decoded(groups.segmentations[row]), kept[row])
        assert np.array_equal(groups.label_map.numpy(), expected)


def test_more_runs_than_there_may_be_are_refused_before_they_are_made() -> None:
    board = np.indices((8, 8)).sum(0) % 2 == 1
    board[-1] = False  # or runs would go on from column to column
    geometry = Geometry((8, 8), (8, 8), (0, 0, 8, 8))
    for masks in (parse_masks([rle.write(board)], (8, 8), Limits()), parse_masks(label_map(board), (8, 8), Limits())):
        assert len(sent(geometry, masks, max_runs=28).segmentations) == 3
        with pytest.raises(RequestError, match="at most 27 runs over the photo") as refused:
            _ = sent(geometry, masks, max_runs=27).segmentations
        assert (refused.value.status, refused.value.field) == (413, "outputs")


def test_the_models_view_by_hand() -> None:
    assert WIDE.view == (2.0, 0.0, 6.0, 4.0)
    assert fit((20, 50), Preprocess((10, 10), (0, 0, 0), (1, 1, 1), "pad")).view == (0.0, -15.0, 50.0, 35.0)
    assert fit((30, 45), Preprocess((7, 9), (0, 0, 0), (1, 1, 1))).view == (0.0, 0.0, 45.0, 30.0)
    # Resized to 20 × 40 of which the middle 16 × 16 are seen.
    assert fit((10, 20), Preprocess((16, 16), (0, 0, 0), (1, 1, 1), "crop", 0.8)).view == (6.0, 1.0, 14.0, 9.0)
