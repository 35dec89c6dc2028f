from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from debugging.segment_table import ClassColumns, SegmentTable, entropy, responsible, score_falls, table_of
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature

LEFT = torch.zeros(4, 4, dtype=torch.bool)
LEFT[:, 0] = True


def network(images: Tensor) -> Tensor:
    """Class 0 counts 2 for a value on the left column and 1 elsewhere; class 1 the left column alone, against it."""
    left = images[..., LEFT].sum((1, 2))
    return torch.stack([left + images.sum((1, 2, 3)), -left], 1)


@pytest.fixture
def table() -> SegmentTable:
    image, black = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    rule = quadrature("midpoint", 2)
    paths = [integrate(network, image, black, torch.tensor([index]), [rule], chunk=8)[0] for index in (0, 1)]
    return table_of(network, paths, black[0], LEFT[None], ["left"], [0, 1], chunk=8)


def test_the_table_by_hand(table: SegmentTable) -> None:
    """The left column has 4 of 16 pixels and 12 of 48 values; ‖Δ‖ is √12 there and 6 in the rest."""
    assert table.labels == ("left", "rest")
    assert table.area.tolist() == [4, 12]
    assert table.wrong.attribution.tolist() == pytest.approx([24, 36])
    assert table.wrong.positive_share.tolist() == pytest.approx([0.4, 0.6])
    assert table.wrong.directional.tolist() == pytest.approx([24 / math.sqrt(12), 6])
    assert table.wrong.replaced.tolist() == pytest.approx([24, 36])
    assert table.wrong.shapley.tolist() == pytest.approx([24, 36])
    assert table.drive.tolist() == pytest.approx([48, 36 / math.sqrt(0.75)])
    assert table.right.attribution.tolist() == pytest.approx([-12, 0])
    assert table.right.positive_share.tolist() == [0, 0]
    assert table.margin_drop.tolist() == pytest.approx([36, 36])
    assert table.right.shapley.tolist() == pytest.approx([-12, 0])
    assert table.responsibility.tolist() == pytest.approx([36, 36])


def test_values_sum_to_what_moved_the_margin(table: SegmentTable) -> None:
    image, black = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    margins = [(scores[0] - scores[1]).item() for scores in network(torch.cat([image, black]))]
    assert table.responsibility.sum().item() == pytest.approx(margins[0] - margins[1])


def test_segments_that_share_the_responsibility(table: SegmentTable) -> None:
    shared = replace(table.wrong, shapley=torch.tensor([24.0, 12.0]))  # margins 36 and 12
    assert responsible(replace(table, wrong=shared)) == [0]
    assert responsible(replace(table, wrong=shared), part=0.3) == [0, 1]
    assert responsible(replace(table, wrong=shared), part=0.3, most=1) == [0]
    more = replace(table.wrong, shapley=torch.tensor([24.0, 48.0]))
    assert responsible(replace(table, wrong=more)) == [1, 0]


def test_a_segment_on_which_no_score_depends_has_no_value_however_large(table: SegmentTable) -> None:
    """The rest has three quarters of the pixels, and the largest value of the left column alone is the score."""

    def of_the_left(images: Tensor) -> Tensor:
        left = images[..., LEFT].amax((1, 2))
        return torch.stack([left, 0 * left], 1)

    image, black = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    rule = quadrature("midpoint", 2)
    paths = [integrate(of_the_left, image, black, torch.tensor([index]), [rule], chunk=8)[0] for index in (0, 1)]
    found = table_of(of_the_left, paths, black[0], LEFT[None], ["left"], [0, 1], chunk=8)
    assert found.responsibility.tolist() == pytest.approx([1, 0])
    assert responsible(found) == [0]


def test_segments_that_overlap_have_the_values_of_their_parts() -> None:
    """Parts of 4, 4 and 8 of 16 pixels, three values each; the first counts twice."""
    image, black = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    halves = torch.arange(4).expand(4, 4) < 2
    rule = quadrature("midpoint", 2)
    paths = [integrate(network, image, black, torch.tensor([index]), [rule], chunk=8)[0] for index in (0, 1)]
    table = table_of(network, paths, black[0], torch.stack([LEFT, halves]), ["left", "half"], [0, 1], chunk=8)
    assert table.labels == ("left", "half", "rest")
    assert table.wrong.shapley.tolist() == pytest.approx([24, 36, 24])


def test_nothing_is_responsible_that_opposes_the_class(table: SegmentTable) -> None:
    opposing = ClassColumns(*(-column for column in vars(table.wrong).values()))
    assert responsible(replace(table, wrong=opposing, right=table.wrong)) == []
    assert responsible(replace(table, wrong=table.right, right=table.right)) == []


def test_equal_segments_keep_their_order(table: SegmentTable) -> None:
    halves = torch.arange(4).expand(4, 4) < 2
    same, none = (ClassColumns(*(torch.full((2,), value).double() for _ in range(4))) for value in (1.0, 0.0))
    assert responsible(replace(table, masks=torch.stack([halves, ~halves]), wrong=same, right=none)) == [0, 1]


def test_falls_do_not_depend_on_the_chunk() -> None:
    image, baseline = torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    masks = torch.rand(5, 4, 4) < 0.5
    whole = score_falls(network, image, baseline, masks, chunk=5)
    torch.testing.assert_close(score_falls(network, image, baseline, masks, chunk=2), whole)
    without = torch.where(masks[3], baseline, image)
    torch.testing.assert_close(whole[3], (network(image[None]) - network(without[None]))[0].double())


def test_entropy_is_in_nats() -> None:
    assert entropy(torch.zeros(1, 12)).item() == pytest.approx(math.log(12))
    assert entropy(torch.tensor([[2000.0, -2000.0]])).item() == 0
