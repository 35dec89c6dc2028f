"""The grid pointing game on maps whose shares are known."""

import pytest
import torch

from evaluation.grid_pointing_game import grid_pointing_game, inner_borders, mosaic, tile_masks
from evaluation.pointing import relevance_mass_accuracy
from imagexplain.errors import ArgumentError


def test_tiles_stand_row_by_row() -> None:
    tiles = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2, 1, 3)
    assert mosaic(tiles)[1].tolist() == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]]
    masks = tile_masks((2, 6), 2)
    assert torch.equal(masks.int().argmax(0), mosaic(tiles)[0].long()) and masks.sum((1, 2)).tolist() == [3] * 4


@pytest.mark.parametrize("side", [2, 3])
def test_a_map_within_a_tile_has_all_of_its_share(side: int) -> None:
    for tile, mask in enumerate(tile_masks((6, 6), side)):
        shares = grid_pointing_game(mask * 3.0, side)
        assert shares.tolist() == [float(tile == each) for each in range(side**2)]


@pytest.mark.parametrize("side", [2, 3])
def test_a_map_that_is_even_has_the_share_of_the_area(side: int) -> None:
    assert grid_pointing_game(torch.ones(6, 6), side).tolist() == pytest.approx([1 / side**2] * side**2)


def test_shares_by_hand() -> None:
    """Positive values 1 + 2 on the left above, 5 on the right below; what is negative does not count."""
    values = torch.tensor([[1.0, 2.0, -9.0, 0.0], [-4.0, 0.0, 0.0, 5.0]])
    assert grid_pointing_game(values[:, :4].repeat_interleave(2, 0), 2).tolist() == pytest.approx([3 / 8, 0, 0, 5 / 8])


def test_nothing_positive_finds_no_tile() -> None:
    assert grid_pointing_game(-torch.ones(4, 4), 2).tolist() == [0] * 4
    assert grid_pointing_game(torch.zeros(4, 4), 2).tolist() == [0] * 4


def test_the_share_is_the_relevance_mass_accuracy_of_a_tile() -> None:
    values = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    for share, mask in zip(grid_pointing_game(values, 3), tile_masks((6, 9), 3), strict=True):
        assert float(share) == pytest.approx(relevance_mass_accuracy(values.flatten(), mask.flatten()))


def test_a_map_that_ignores_the_class_gets_the_share_of_the_area_on_average() -> None:
    """The shares add up to 1, so that the mean over the classes of a mosaic is 1 / n²."""
    values = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) ** 4
    assert float(grid_pointing_game(values, 3).mean()) == pytest.approx(1 / 9)


def test_inner_borders_by_hand() -> None:
    near = inner_borders((4, 6), 2, 1)
    assert near.tolist() == [[column in (2, 3) or row in (1, 2) for column in range(6)] for row in range(4)]
    assert not inner_borders((4, 4), 1, 1).any()


def test_what_does_not_fit() -> None:
    with pytest.raises(ArgumentError, match="tiles: wanted a square number of them, got 3"):
        mosaic(torch.zeros(3, 3, 2, 2))
    with pytest.raises(ArgumentError, match="side: wanted a divisor of 4 × 6, got 4"):
        grid_pointing_game(torch.zeros(4, 6), 4)
