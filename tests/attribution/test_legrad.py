"""LeGrad beside a head that is given each layer's tokens by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from imagexplain.attribution.methods.legrad import Reading, legrad
from imagexplain.attribution.network.token_blocks import token_blocks
from imagexplain.errors import UnsupportedModelError
from tests.attribution.networks import assert_untouched, footprint, pictures, swin, torchvision_vit, vit
from tests.rows import rows_through


def by_hand(network: Any, images: Tensor, target: int, layers: int, reading: Reading) -> Tensor:
    """Mean over the last layers of the positive gradients by attention of the head's scores of their tokens."""
    attention: list[Tensor] = []
    tokens = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images.requires_grad_()))))
    maps = []
    for block in network.blocks:
        block.attn.fused_attn = False
        handle = block.attn.attn_drop.register_forward_hook(lambda _, __, output: attention.append(output))
        tokens = block(tokens)
        handle.remove()
        block.attn.fused_attn = True
        read = tokens.mean(1, keepdim=True).expand_as(tokens) if reading == "mean" else tokens
        score = network.forward_head(network.norm(read))[:, target].sum()
        (gradient,) = torch.autograd.grad(score, attention[-1], retain_graph=True)
        maps.append(gradient.relu().mean((1, 2)))
    return torch.stack(maps[-layers:]).mean(0)[:, network.num_prefix_tokens :]


@pytest.mark.parametrize("make", [lambda: vit(depth=3), lambda: vit("avg", class_token=False, reg_tokens=2)])
@pytest.mark.parametrize("reading", ["mean", "model"])
def test_a_head_by_hand(make: Callable[[], Any], reading: Reading) -> None:
    network, images = make(), pictures(2)
    depth = len(network.blocks)
    for layers in (0, 1, 2):
        expected = by_hand(network, images.clone(), 3, layers or depth, reading)
        found = legrad(network, images, 3, layers=layers, reading=reading, upsample=False).flatten(1)
        assert expected.max() > 0 and torch.allclose(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("make", [vit, torchvision_vit, lambda: vit(depth=1)])
def test_classes_networks_and_chunks(make: Callable[[], Any]) -> None:
    network, images = make().requires_grad_(True), pictures(3)
    before = footprint(network)
    maps = legrad(network, images, [2, 0, 1])
    assert maps.shape == (3, 1, 32, 32) and maps.max() > 0 and not maps.requires_grad
    alone = legrad(network, images, [2, 0, 1], chunk=1)
    torch.testing.assert_close(maps, alone, rtol=1e-9, atol=1e-9 * maps.max().item())
    with torch.no_grad():
        assert torch.equal(legrad(network, images, [2, 0, 1]), maps)
    assert_untouched(before, network)


def test_blocks_are_those_of_the_model() -> None:
    for network, blocks in ((vit(), "blocks"), (torchvision_vit(), "encoder.layers"), (vit(depth=1), "blocks")):
        found = token_blocks(network, pictures(1))
        assert found.modules == [*network.get_submodule(blocks)] and (found.grid, found.prefix) == ((4, 4), 1)


def test_bounds_and_refusals() -> None:
    network, images = vit(), pictures(1)
    with pytest.raises(ValueError, match="layers: wanted 0 to 2, those of the model, got 3"):
        legrad(network, images, layers=3)
    with rows_through(network) as rows, pytest.raises(ValueError, match="layers: wanted at least 0, got -1"):
        legrad(network, images, layers=-1)
    assert not rows
    with pytest.raises(ValueError, match="reading: wanted one of mean, model, got 'last'"):
        legrad(network, images, reading="last")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError, match=r"in blocks that keep one row of tokens .* around its layer 0"):
        legrad(swin(), images)
