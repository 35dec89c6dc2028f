from __future__ import annotations

import pytest
import torch

from imagexplain.vision.superpixels import GridSettings, SlicSettings, grid, one_hot, slic


def quarters(size: int) -> torch.Tensor:
    """A picture of four plain quarters: black, red, green, blue."""
    picture = torch.zeros(3, size, size)
    half = size // 2
    picture[0, :half, half:] = picture[1, half:, :half] = picture[2, half:, half:] = 1
    return picture


@pytest.mark.parametrize("size", [32, 224])
def test_superpixels_follow_the_picture(size: int) -> None:
    picture = quarters(size)
    labels = slic(picture, SlicSettings(20))
    assert labels.shape == (size, size) and labels.dtype == torch.int64
    masks = one_hot(labels)
    assert bool((masks.sum(0) == 1).all()) and bool(masks.flatten(1).any(1).all())
    assert 8 <= len(masks) <= 40
    pure = sum(int(picture[:, mask].std(1).max() < 0.1) for mask in masks)
    assert pure >= 0.9 * len(masks)
    assert torch.equal(labels, slic(picture, SlicSettings(20)))


def test_more_segments_when_more_are_asked_for() -> None:
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1 + quarters(64) * 0.9
    few, many = (int(slic(picture, SlicSettings(count)).max()) + 1 for count in (9, 60))
    assert 4 <= few < many <= 90


def test_a_plain_picture_is_still_cut_up() -> None:
    assert int(slic(torch.full((3, 32, 32), 0.5), SlicSettings(16)).max()) + 1 == 16


def test_a_grid_by_hand() -> None:
    assert grid((2, 5), GridSettings(2, 2)).tolist() == [[0, 0, 0, 1, 1], [2, 2, 2, 3, 3]]
    assert grid((2, 3), GridSettings(5, 2)).tolist() == [[0, 0, 1], [2, 2, 3]]  # no more rows than pixels
    assert one_hot(grid((4, 4), GridSettings())).shape == (16, 4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SlicSettings(0), "n_segments: wanted at least 1, got 0"),
        (lambda: SlicSettings(5, 0), "compactness: wanted a positive number, got 0"),
        (lambda: GridSettings(0, 3), "rows, columns: wanted at least 1 of each, got 0 and 3"),
    ],
)
def test_settings_that_make_no_segments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
