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
    assert table.drive.tolist() == pytest.approx([48, 36 / math.sqrt(0.75)])
    assert table.right.attribution.tolist() == pytest.approx([-12, 0])
    assert table.right.positive_share.tolist() == [0, 0]
    assert table.margin_drop.tolist() == pytest.approx([36, 36])
    rest = (36 / math.sqrt(0.75) / 48 + 6 / (24 / math.sqrt(12))) / 2
    assert table.responsibility.tolist() == pytest.approx([1, rest])


def test_the_small_segment_is_responsible_although_the_large_one_carries_more(table: SegmentTable) -> None:
    assert responsible(table) == [0, 1]
    assert responsible(table, part=0.9) == [0]
    assert responsible(table, most=1) == [0]


def test_nothing_is_responsible_that_opposes_the_class(table: SegmentTable) -> None:
    opposing = ClassColumns(*(-column for column in vars(table.wrong).values()))
    assert responsible(replace(table, wrong=opposing)) == []
    silent = ClassColumns(*(0 * column for column in vars(table.wrong).values()))
    assert responsible(replace(table, wrong=silent)) == []


def test_equal_segments_keep_their_order(table: SegmentTable) -> None:
    halves = torch.arange(4).expand(4, 4) < 2
    same = ClassColumns(*(torch.ones(2, dtype=torch.float64) for _ in range(3)))
    assert responsible(replace(table, masks=torch.stack([halves, ~halves]), wrong=same)) == [0, 1]


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
