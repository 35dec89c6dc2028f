"""ROAD: imputation by hand and by pytorch-grad-cam's, which is the authors', and both orders on a known model."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import Tensor

from evaluation.road import DIAGONAL, Road, impute, road
from imagexplain.errors import ArgumentError


def bright(x: Tensor) -> Tensor:
    """Score of class 0 by the first row's brightness, of class 1 zero."""
    score = x[:, :, 0].mean((1, 2)) * 4
    return torch.stack([score, torch.zeros_like(score)], 1)


def test_one_pixel_is_the_mean_of_its_neighbours() -> None:
    image = torch.arange(9.0).view(1, 3, 3)
    image[0, 0, 0] = 12
    removed = torch.zeros(3, 3, dtype=torch.bool)
    removed[1, 1] = True
    assert impute(image, removed)[0, 1, 1].item() == pytest.approx(4 + 12 * DIAGONAL)
    removed = torch.zeros(3, 3, dtype=torch.bool)
    removed[0, 0] = True  # of its neighbours 1 and 3 beside it, 4 across
    assert impute(image, removed)[0, 0, 0].item() == pytest.approx((2 * 1 + 2 * 3 + 4) / 5)
    assert impute(image, torch.zeros(3, 3, dtype=torch.bool)).equal(image)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_imputation_is_the_authors(share: float) -> None:
    peer = import_module("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0.0)
    generator = torch.Generator().manual_seed(1)
    image, removed = torch.randn(3, 14, 11, generator=generator), torch.rand(14, 11, generator=generator) < share
    expected = peer(image, (~removed).float())
    torch.testing.assert_close(impute(image, removed), expected, rtol=1e-5, atol=1e-5)


def test_both_orders_on_a_model_of_the_first_row() -> None:
    """The first row is bright: without it nothing is left of the score, without the others all."""
    image, values = torch.zeros(1, 8, 8), torch.zeros(8, 8)
    image[:, 0] = values[0] = 1.0
    found = road(bright, image, 0, values, torch.Generator(), shares=(0.125,), noise=0.0)
    whole, half = bright(image[None]).softmax(1)[0, 0].item(), 0.5
    assert found.most == pytest.approx(half) and found.least == pytest.approx(whole)
    assert found.combined == pytest.approx((whole - half) / 2) == Road(half, whole).combined
    turned = road(bright, image, 0, -values, torch.Generator(), shares=(0.125,), noise=0.0)
    assert turned.combined == pytest.approx(-found.combined)


def test_noise_is_the_generators_and_shares_leave_something() -> None:
    image, values = torch.rand(3, 6, 6), torch.rand(6, 6)
    first, second = (road(bright, image, 0, values, torch.Generator().manual_seed(2), noise=0.5) for _ in range(2))
    assert first == second != road(bright, image, 0, values, torch.Generator().manual_seed(3), noise=0.5)
    for share in (0.0, 1.0):
        with pytest.raises(ArgumentError, match="shares: wanted 1 to 35 of 36 pixels"):
            road(bright, image, 0, values, torch.Generator(), shares=(share,))
