"""Relevance of attention by hand, and beside what the authors' code gave for the same weights and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.differences import contrast
from imagexplain.attribution.methods.transformer_attribution import transformer_attribution
from imagexplain.attribution.network.attention_capture import attention_layers
from imagexplain.attribution.network.forward import frozen
from imagexplain.attribution.network.relevance_rules import RelevanceRules
from imagexplain.errors import UnsupportedModelError
from tests.attribution.networks import assert_untouched, filled, footprint, pictures, swin, torchvision_vit, vit, waves


class OneLayer(nn.Module):
    """A class token and the image's two pixels, one layer with one given head; scores are ± the class token."""

    def __init__(self, after: Callable[[Tensor], Tensor] = lambda tokens: tokens) -> None:
        super().__init__()
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        tokens = torch.cat([torch.ones(len(images), 1, 1).to(images), images.flatten(2).mT], 1)
        given = torch.tensor([(0.5, 0.25, 0.25), (0.2, 0.6, 0.2), (0.25, 0.25, 0.5)], dtype=images.dtype)
        attention = (given.log() + 0 * tokens.mT).unsqueeze(1).softmax(-1).squeeze(1)
        tokens = self.after(tokens + attention @ tokens)
        return torch.cat([tokens[:, 0], -tokens[:, 0]], 1)


class Block(nn.Module):
    """PyTorch's attention over tokens (B, N, 8), or (N, B, 8), and two linear layers, whose middle may be in place."""

    def __init__(self, batch_first: bool, in_place: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.wide, self.narrow = nn.Linear(8, 12), nn.Linear(12, 8)
        self.in_place = in_place

    def forward(self, tokens: Tensor) -> Tensor:
        found, _ = self.attention(tokens, tokens, tokens)
        found = tokens + found
        middle = self.wide(found)
        if not self.in_place:
            return self.narrow((2 * middle).relu()) + found
        middle.mul_(2)
        middle.relu_()
        result: Tensor = self.narrow(middle)
        result.add_(found)
        return result


class PyTorchViT(nn.Module):
    """Two blocks over a class token and 2 × 2 patches, of equal weights however they are laid out."""

    def __init__(self, batch_first: bool = True, in_place: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patches, self.start = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.zeros(1, 1, 8))
        self.blocks, self.head = nn.Sequential(*(Block(batch_first, in_place) for _ in range(2))), nn.Linear(8, 5)
        filled(self.double().eval())

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.start.expand(len(images), -1, -1), patches], 1)
        if self.batch_first:
            return self.head(self.blocks(tokens)[:, 0])
        return self.head(self.blocks(tokens.transpose(0, 1))[0])


def test_by_hand() -> None:
    images = torch.tensor([[[[2.0, -1.0]]]], dtype=torch.float64)
    # t = (1, 2, −1), A's first row (.5, .25, .25): A t = .75, so that the sum 1 + .75 hands 3/7 to attention, of which
    # each A_j gets A_j t_j / .75 · 3/7 / 2 = (2, 2, −1) / 14; ∇A = t. The products of the patches are (4, 1) / 14.
    result = transformer_attribution(OneLayer(), images, 0)
    assert torch.allclose(result.flatten(), torch.tensor([4.0, 1.0], dtype=torch.float64) / 14, rtol=0, atol=1e-12)
    # Of −t the relevance is the same and the gradient has the other sign.
    assert not transformer_attribution(OneLayer(), images, 1).any()


AUTHORS = [
    [0.0004788461, 0.0001591246, 0.0005331131, 0.0038904449],
    [0.0012256955, 0.0000000001, 0.0018415217, 0.0006811208],
]
"""Maps of class 3 that the authors' ViT_LRP gave, whose quotients have 1e-9 in their divisors."""


def test_the_authors_code() -> None:
    found = transformer_attribution(filled(vit(size=(16, 16), embed_dim=8)), waves(), 3, upsample=False)
    expected = torch.tensor(AUTHORS, dtype=torch.float64)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("make", [vit, swin, torchvision_vit])
def test_relevance_leaves_the_scores_as_they_are(make: Callable[[], Any]) -> None:
    network, images = make().requires_grad_(True), pictures(2)
    before = footprint(network)
    with frozen(list(network.modules())):
        scores, layers = attention_layers(network, images, RelevanceRules)
    assert torch.allclose(scores, network(images), rtol=1e-9) and len(layers) > 1
    maps = transformer_attribution(network, images, [1, 2])
    assert maps.max() > 0 and not maps.requires_grad
    alone = torch.cat([transformer_attribution(network, images[i : i + 1], i + 1) for i in range(2)])
    torch.testing.assert_close(maps, alone, rtol=1e-9, atol=1e-9 * maps.max().item())
    assert_untouched(before, network)


@pytest.mark.parametrize("count", [1, 2, 5])  # five tokens, too
def test_images_may_be_the_second_dimension_of_tokens(count: int) -> None:
    images = pictures(count, (8, 8))
    expected = transformer_attribution(PyTorchViT(), images, 2)
    assert expected.max() > 0
    found = transformer_attribution(PyTorchViT(batch_first=False), images, 2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.max().item())


def test_functions_in_place_are_as_others() -> None:
    images = pictures(2, (8, 8))
    expected = transformer_attribution(PyTorchViT(), images, 2)
    found = transformer_attribution(PyTorchViT(in_place=True), images, 2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_one_by_one_in_any_chunk(dtype: torch.dtype) -> None:
    network, images = vit(dtype=dtype), pictures(3, dtype=dtype)
    maps = transformer_attribution(network, images, [2, 0, 1])
    alone = transformer_attribution(network, images, [2, 0, 1], chunk=1)
    assert torch.allclose(maps, alone, rtol=0, atol=1e-6 * maps.max().item())
    with torch.no_grad():
        assert torch.equal(transformer_attribution(network, images, [2, 0, 1]), maps)


def test_a_contrast_is_of_both_classes() -> None:
    network, images = vit(), pictures(1)
    with contrast(network, [(3, 1)]) as (differences, columns):
        assert isinstance(differences, nn.Module)
        found = transformer_attribution(differences, images, columns)
    assert found.max() > 0
    assert not torch.allclose(found, transformer_attribution(network, images, 3), rtol=1e-2)


@pytest.mark.parametrize("after", [torch.exp, F.softplus, torch.cumsum])
def test_functions_without_a_rule_are_refused(after: Callable[..., Tensor]) -> None:
    network = OneLayer(lambda tokens: after(tokens, 1) if after is torch.cumsum else after(tokens))
    before = footprint(network)
    wanted = f"model: wanted one made of functions that have a rule, got one that calls torch.*{after.__name__}"
    with pytest.raises(UnsupportedModelError, match=wanted):
        transformer_attribution(network, torch.ones(1, 1, 1, 2), 0)
    assert_untouched(before, network)
