"""Attributions as parts of a training loss: every method that offers ``create_graph``."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import imagexplain.attribution as library
from tests.attribution.inputs import noise

OPTIONS: dict[str, dict[str, Any]] = {
    "blur_ig": {"steps": 3, "max_sigma": 1.5, "chunk": 2},
    "expected_gradients": {"references": torch.full((2, 3, 4, 4), 0.2, dtype=torch.float64), "samples": 3, "chunk": 2},
    "idgi": {"steps": 3, "chunk": 2},
    "integrated_gradients": {"steps": 3, "chunk": 2},
    "smoothgrad": {"samples": 3, "chunk": 2},
}
DIFFERENTIABLE = [
    name for name in library.METHODS if "create_graph" in inspect.signature(getattr(library, name)).parameters
]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3), nn.Tanh()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)).double().eval()


def images() -> Tensor:
    return torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def method(name: str, network: nn.Module) -> partial[Tensor]:
    options = OPTIONS.get(name, {}) | ({"layer": "2"} if name.endswith(("cam", "plusplus")) else {})
    return partial(getattr(library, name), network, **options)


def test_the_methods_that_offer_it() -> None:
    assert set(OPTIONS) | {"gradient", "input_x_gradient", "grad_cam", "layer_cam"} <= set(DIFFERENTIABLE)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_map_is_the_same_with_and_without_a_graph(name: str, network: nn.Module) -> None:
    kept = method(name, network)(images().requires_grad_(), [2, 0], create_graph=True)
    plain = method(name, network)(images(), [2, 0])
    assert kept.requires_grad and not plain.requires_grad
    assert torch.allclose(kept, plain, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_differentiable_by_the_images(name: str, network: nn.Module) -> None:
    run = method(name, network)
    assert torch.autograd.gradcheck(lambda points: run(points, [2, 0], create_graph=True), images().requires_grad_())


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_loss_on_the_map_trains_the_parameters(name: str, network: nn.Module) -> None:
    weight: Tensor = next(network.parameters())
    step = noise(*weight.shape, seed=3)

    def loss() -> Tensor:
        return method(name, network)(images(), [2, 0], create_graph=True).square().sum()

    (slope,) = torch.autograd.grad(loss(), weight)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-5 * step
        ends.append(loss().item())
        with torch.no_grad():
            weight -= sign * 1e-5 * step
    assert (slope * step).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "grad_cam"])
def test_through_fused_attention(name: str) -> None:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes).eval()
    options = {"steps": 2} if name == "integrated_gradients" else {}
    maps = getattr(library, name)(network, torch.rand(2, 3, 16, 16), [2, 0], create_graph=True, **options)
    maps.square().sum().backward()
    assert network.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
