"""Lower precision of a network: in the forward pass alone, and on a GPU alone."""

from __future__ import annotations

import torch
from torch import nn

from imagexplain.attribution import integrated_gradients
from imagexplain.models.optimize.precision import Autocast, with_precision


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    return layers.eval().requires_grad_(False)


def test_products_are_rounded_and_scores_are_float32() -> None:
    exact = network()
    seen: list[torch.dtype] = []
    exact[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    scores = Autocast(exact, torch.bfloat16)(images)
    assert seen == [torch.bfloat16]
    assert scores.dtype == torch.float32
    difference = (scores - exact(images)).abs().max()
    assert 0 < difference < 0.02


def test_attributions_are_those_of_float32_up_to_the_rounding() -> None:
    exact, images = network(), torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    wanted, given = (
        integrated_gradients(model, images, 1, baselines=torch.zeros_like(images))
        for model in (exact, Autocast(exact, torch.bfloat16))
    )
    assert given.dtype == torch.float32
    off = (given - wanted).abs().max() / wanted.abs().max()
    assert 0 < off < 0.05


def test_a_cpu_keeps_float32() -> None:
    exact = network()
    for precision in ("float32", "tf32", "bfloat16"):
        assert with_precision(exact, precision, torch.device("cpu")) is exact
