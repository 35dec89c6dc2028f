"""Backward rules by hand, AttnLRP beside what the authors' code gave, and what must add up."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from imagexplain.attribution.differences import contrast
from imagexplain.attribution.methods.attn_lrp import attn_lrp
from imagexplain.attribution.methods.input_x_gradient import input_x_gradient
from imagexplain.attribution.network.backward_rules import BackwardRules
from imagexplain.errors import UnsupportedModelError
from tests.attribution.networks import assert_untouched, filled, footprint, pictures, swin, vit, waves


def flow(function, values: Tensor, **rules: float) -> Tensor:
    """Gradient of the sum of a function under the rules."""
    given = values.clone().requires_grad_()
    with torch.enable_grad(), BackwardRules(hold_attention=False, **rules):
        result = function(given)
    plain = function(values)
    assert torch.allclose(result, plain, rtol=1e-6)
    (gradient,) = torch.autograd.grad(result.sum(), given)
    return gradient


def test_rules_by_hand() -> None:
    x = torch.tensor([[2.0, -1.0]])
    assert torch.allclose(flow(lambda v: v * (2 * v), x), 2 * x)  # half of 4x
    assert torch.allclose(flow(F.gelu, x), F.gelu(x) / x)
    assert torch.allclose(flow(lambda v: v * torch.sigmoid(v), x), torch.sigmoid(x))
    assert torch.allclose(flow(lambda v: F.silu(v * 1, inplace=True), x), torch.sigmoid(x))
    # (x − .5) / 1.5, the 1.5 held: the mean alone has a gradient, which takes all of a sum
    assert torch.allclose(flow(lambda v: F.layer_norm(v, (2,))[:, :1], x), torch.tensor([[0.5, -0.5]]) / 1.5)
    assert torch.allclose(flow(lambda v: F.rms_norm(v, (2,)), x), torch.full((1, 2), 2.5**-0.5))
    assert torch.allclose(flow(F.normalize, x), torch.full((1, 2), 5**-0.5))


def test_the_gamma_rule_by_hand() -> None:
    weight, bias = torch.tensor([[1.0, 2.0], [-1.0, 1.0]]), torch.tensor([1.0, -0.5])
    x = torch.tensor([[2.0, -1.0]])
    # z = (1, −3.5), γ = 1. First: weights (2, 4) at 2 and (1, 2) at −1, bias 2: 4 − 2 + 2; share 1/4.
    # Second, negative: (−2, 1) at 2 and (−1, 2) at −1, bias −1: −4 − 2 − 1; share −3.5/−7.
    expected = torch.tensor([[2 / 4 - 2 / 2, 2 / 4 + 2 / 2]])
    assert torch.allclose(flow(lambda v: F.linear(v, weight, bias), x, gamma=1.0), expected)
    convolved = flow(lambda v: F.conv1d(v.unsqueeze(-1), weight.unsqueeze(-1), bias), x, conv_gamma=1.0)
    assert torch.allclose(convolved, expected)


LARGE = [
    [0.0010988606769450507, -0.0005025640142629968, 0.0006534083274050463, -0.0004701992972161623],
    [0.0003832613316438384, 0.0008544633641054297, 0.0008738239622803393, 0.00036502058515640377],
]
"""Sums over patches of class 3 by the authors' code for vision transformers, γ .05 and .25 by zennit, with its 1e-6."""
PLAIN = [
    [0.00043539282778203096, -0.0004946215833933169, 9.929729453749458e-05, -0.00043002035975619904],
    [0.00011766316308074894, 0.0002632515331762852, 0.000404303055832927, -0.00010590911498832936],
]
"""Same, through the softmax and without γ."""


def test_the_authors_code() -> None:
    made = torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=5).double().eval()
    network = filled(made.requires_grad_(False))

    def patches(maps: Tensor) -> Tensor:
        return maps.unflatten(2, (2, 8)).unflatten(4, (2, 8)).sum((1, 3, 5)).flatten(1)

    found = patches(attn_lrp(network, waves(), 3))
    assert torch.allclose(found, torch.tensor(LARGE, dtype=torch.float64), rtol=2e-5, atol=1e-8)
    found = patches(attn_lrp(network, waves(), 3, gamma=0.0, conv_gamma=0.0, through_softmax=True))
    assert torch.allclose(found, torch.tensor(PLAIN, dtype=torch.float64), rtol=1e-8, atol=1e-12)


def test_without_biases_a_map_adds_up_to_the_score() -> None:
    """With γ too, for it shares out what there is; the positions are biases."""
    network, images = vit("avg", class_token=False), pictures(2)
    for bias in (network.pos_embed, network.patch_embed.proj.bias):
        nn.init.zeros_(bias)
    for gamma in (0.0, 0.3):
        maps = attn_lrp(network, images, [1, 3], gamma=gamma, conv_gamma=gamma)
        torch.testing.assert_close(maps.sum((1, 2, 3)), network(images)[[0, 1], [1, 3]], rtol=1e-9, atol=1e-12)


def test_classes_networks_and_chunks() -> None:
    for network in (vit(), swin()):
        images, before = pictures(3), footprint(network)
        maps = attn_lrp(network, images, [2, 0, 1])
        assert maps.shape == images.shape and maps.any() and not maps.requires_grad
        alone = attn_lrp(network, images, [2, 0, 1], chunk=1)
        torch.testing.assert_close(maps, alone, rtol=1e-9, atol=1e-12)
        with torch.no_grad():
            assert torch.equal(attn_lrp(network, images, [2, 0, 1]), maps)
        assert_untouched(before, network)


def test_a_contrast_is_the_difference_of_two_maps() -> None:
    network, images = vit(), pictures(2)
    with contrast(network, [(3, 1)] * 2) as (differences, columns):
        assert isinstance(differences, nn.Module)
        found = attn_lrp(differences, images, columns)
    torch.testing.assert_close(found, attn_lrp(network, images, 3) - attn_lrp(network, images, 1))


def test_bounds_and_refusals() -> None:
    network, images = vit(), pictures(1)
    for value in (-0.1, float("nan"), 1e7):
        with pytest.raises(ValueError, match=r"^gamma: wanted a number from 0 to 1e\+06, got"):
            attn_lrp(network, images, gamma=value)
        with pytest.raises(ValueError, match=r"^conv_gamma: wanted a number from 0 to 1e\+06, got"):
            attn_lrp(network, images, conv_gamma=value)
    network.norm = nn.Softplus()
    with pytest.raises(UnsupportedModelError, match=r"got one that calls torch\.nn\.functional\.softplus"):
        attn_lrp(network, images)
    assert not torch.allclose(attn_lrp(vit(), images, 0), input_x_gradient(vit(), images, 0), rtol=0.1)
