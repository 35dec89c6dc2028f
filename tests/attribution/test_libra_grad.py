"""Libra-FullGrad+ beside what the authors' layers gave, and what must add up to the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from imagexplain.attribution.methods.libra_grad import libra_grad
from imagexplain.errors import UnsupportedModelError
from tests.attribution.networks import (
    assert_untouched,
    filled,
    footprint,
    pictures,
    swin,
    torchvision_vit,
    vit,
    waves,
)

AUTHORS = [
    [0.019739423372607083, 0.01995959762742493, 0.01897370189485171, 0.0189061899003677],
    [0.021070317198418245, 0.020281816572284568, 0.020421430456092335, 0.019027866030383853],
]
"""Mean over both blocks of FullGrad of class 3 by the authors' layers, whose GELU has a root in float32."""


def test_the_authors_layers() -> None:
    found = libra_grad(filled(vit(size=(16, 16), embed_dim=8)), waves(), 3, upsample=False)
    assert torch.allclose(found.flatten(1), torch.tensor(AUTHORS, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_patches_add_up_to_the_score() -> None:
    """Where there are no tokens before them, and no biases behind them."""
    network, images = vit("avg", class_token=False, init_values=0.5, qk_norm=True), pictures(2)
    for name, parameter in network.blocks.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.5, 0.5)
    maps = libra_grad(network, images, [1, 3], upsample=False)
    torch.testing.assert_close(maps.sum((1, 2, 3)), network(images)[[0, 1], [1, 3]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [vit, torchvision_vit, lambda: vit(reg_tokens=4)])
def test_classes_networks_and_chunks(make: Callable[[], Any]) -> None:
    network, images = make().requires_grad_(True), pictures(3)
    before = footprint(network)
    maps = libra_grad(network, images, [2, 0, 1])
    assert maps.shape == (3, 1, 32, 32) and maps.min() < 0 < maps.max() and not maps.requires_grad
    torch.testing.assert_close(maps, libra_grad(network, images, [2, 0, 1], chunk=1), rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(libra_grad(network, images, [2, 0, 1]), maps)
    assert_untouched(before, network)


def test_refusals() -> None:
    with pytest.raises(UnsupportedModelError, match=r"in blocks that keep one row of tokens .* around its layer 0"):
        libra_grad(swin(), pictures(1))
    network = vit()
    network.norm = nn.Softplus()
    before = footprint(network)
    with pytest.raises(UnsupportedModelError, match=r"got one that calls torch\.nn\.functional\.softplus"):
        libra_grad(network, pictures(1))
    assert_untouched(before, network)
