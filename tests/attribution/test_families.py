from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from imagexplain.attribution.groups.families import Family, containment, disjoint_parts, family, parents
from tests.attribution.inputs import families, row_masks


def texts(groups: Tensor) -> list[str]:
    return ["".join("1" if on else "0" for on in row.flatten().tolist()) for row in groups]


def test_segments_rest_and_whole() -> None:
    groups = family(row_masks("1100", "0010"), ["cat", "dog"])
    assert texts(groups.masks) == ["1100", "0010", "0001", "1111"]
    assert groups.labels == ("cat", "dog", "rest", "whole image")
    assert groups.kinds == ("segment", "segment", "rest", "whole")
    assert (groups.dropped, groups.merged, len(groups)) == ((), (), 4)


def test_a_partition_leaves_no_rest() -> None:
    assert family(row_masks("110", "001"), ["a", "b"]).labels == ("a", "b", "whole image")


def test_empty_masks_are_dropped_and_equal_ones_merged() -> None:
    groups = family(row_masks("100", "000", "100", "110"), ["a", "nothing", "a again", "b"])
    assert texts(groups.masks) == ["100", "110", "001", "111"]
    assert groups.dropped == ("nothing",)
    assert groups.merged == (("a again", "a"),)


def test_a_segment_of_everything_is_the_whole_image() -> None:
    groups = family(row_masks("111"), ["all"])
    assert (groups.labels, groups.kinds, groups.merged) == (("all",), ("segment",), (("whole image", "all"),))


@pytest.mark.parametrize("segments", [torch.zeros(0, 1, 3, dtype=torch.bool), row_masks("000")])
def test_without_segments_the_whole_image_is_left(segments: Tensor) -> None:
    groups = family(segments, ["nothing"] * len(segments))
    assert (texts(groups.masks), groups.kinds, groups.merged) == (["111"], ("whole",), ())


@pytest.mark.parametrize(
    ("segments", "labels", "message"),
    [
        (torch.ones(2, 2, dtype=torch.bool), ["a"], r"masks: wanted \(S, H, W\) bool, got \(2, 2\) torch.bool"),
        (torch.ones(1, 2, 2), ["a"], r"masks: wanted \(S, H, W\) bool, got \(1, 2, 2\) torch.float32"),
        (torch.ones(1, 0, 2, dtype=torch.bool), ["a"], "masks: wanted at least one pixel, got 0×2"),
        (torch.ones(1, 2, 2, dtype=torch.bool), [], "labels: wanted one for each of 1 segments, got 0"),
    ],
)
def test_what_is_no_family(segments: Tensor, labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(segments, labels)


def test_containment_and_parents_of_a_hierarchy() -> None:
    """whole ⊃ b ⊃ a; c overlaps b only; the rest stands alone below the whole."""
    groups = family(row_masks("10000", "11100", "00110"), ["a", "b", "c"])
    assert groups.labels == ("a", "b", "c", "rest", "whole image")
    wanted = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert containment(groups).int().tolist() == wanted
    assert parents(groups).tolist() == [1, 4, 4, 4, -1]


def test_refinement_of_overlapping_masks() -> None:
    """Masks 11100 and 00110 cut the image into 11000 (the first), 00100 (both), 00010 (the second), 00001 (none)."""
    parts = disjoint_parts(row_masks("11100", "00110"))
    assert parts.atoms.tolist() == [[0, 0, 1, 2, 3]]
    assert parts.members.int().tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert parts.area.tolist() == [2, 1, 1, 1]
    attribution = torch.tensor([[[1.0, 2, 3, 4, 5]], [[0, 0, 0.5, 0, -1]]])
    assert parts.sums(attribution).tolist() == [3, 3.5, 4, 4]


def test_refinement_without_masks_is_the_image() -> None:
    parts = disjoint_parts(torch.zeros(0, 2, 3, dtype=torch.bool))
    assert (parts.atoms.tolist(), parts.members.shape, parts.area.tolist()) == ([[0] * 3] * 2, (1, 0), [6])


def test_hundreds_of_masks_need_more_than_a_machine_word() -> None:
    parts = disjoint_parts(torch.eye(130, dtype=torch.bool).view(130, 10, 13))
    assert parts.atoms.flatten().tolist() == list(range(130))
    assert torch.equal(parts.members, torch.eye(130, dtype=torch.bool))


@given(families())
def test_every_mask_is_the_union_of_its_parts(segments: Tensor) -> None:
    parts = disjoint_parts(segments)
    assert torch.equal(parts.members.T[:, parts.atoms], segments)
    assert len({tuple(row) for row in parts.members.tolist()}) == len(parts.members)
    assert parts.area.min() > 0


@given(families())
def test_a_family_has_different_groups_that_cover_the_image(segments: Tensor) -> None:
    groups: Family = family(segments, [str(index) for index in range(len(segments))])
    assert len(set(texts(groups.masks))) == len(groups)
    assert groups.masks.flatten(1).any(1).all()
    assert groups.masks.any(0).all()
    found = {*groups.labels, *groups.dropped, *(name for name, _ in groups.merged)}
    assert found >= {str(index) for index in range(len(segments))}
    # Containment by its definition, group by group.
    wanted = [[bool((inner & ~outer).any()) is False for inner in groups.masks] for outer in groups.masks]
    assert containment(groups).tolist() == wanted
