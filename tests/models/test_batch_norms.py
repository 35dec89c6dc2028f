"""Batch norms folded into the convolutions that they follow, found by running the network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from imagexplain.models.optimize.batch_norms import fold_batch_norms
from tests.attribution.inputs import noise
from tests.attribution.networks import prepared


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def scores_and_gradient(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    rows = image.clone().requires_grad_()
    scores = network(rows)
    return scores.detach(), torch.autograd.grad(scores[0, 1], rows)[0]


def assert_folds(network: nn.Module, left: int, image: Tensor) -> None:
    """Check that a copy has so many norms left, and in float64 the same scores and gradients, on another image too."""
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norms(network, image)
    assert norms(folded) == left
    assert not folded.training and not any(weight.requires_grad for weight in folded.parameters())
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items()), "the network is left as it is"
    for other in (image, -2 * image.flip(3)):
        for found, wanted in zip(
            scores_and_gradient(folded, other), scores_and_gradient(network.requires_grad_(False), other), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "size", "left"),
    [
        ("resnet18", 64, 0),
        ("tf_efficientnet_lite0", 64, 0),  # BatchNormAct2d and padding by the size
        ("mobilenetv3_small_050", 64, 0),  # squeeze and excitation
        ("regnetx_002", 64, 0),
        ("ghostnet_050", 64, 0),  # features made from a convolution's normed output
        ("resnetv2_50", 64, 17),  # pre-activation: norms of sums
        ("repvgg_a0", 64, 17),  # norms of a branch without a convolution
        ("vit_tiny_patch16_224", 224, 0),
    ],
)
def test_networks_of_timm(name: str, size: int, left: int) -> None:
    torch.manual_seed(0)
    assert_folds(prepared(timm.create_model(name, num_classes=5)), left, noise(1, 3, size, size))


def test_a_network_of_torchvision() -> None:
    torch.manual_seed(0)
    assert_folds(prepared(torchvision.models.densenet121(num_classes=5)), 62, noise(1, 3, 64, 64))


class Doubled(nn.Module):
    """A convolution, its norm, and a sum that takes both outputs, or only the norm's."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.both = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), both
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        normed = self.norm(maps)
        return self.head((maps + normed if self.both else normed).mean((2, 3)))


def shared_convolution() -> nn.Module:
    """A convolution that runs twice, before two norms."""
    conv = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def changed_in_place() -> nn.Module:
    """A norm whose input is the convolution's output, changed meanwhile."""
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)


def own_statistics() -> nn.Module:
    """A norm that takes the statistics of what it is given."""
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def plain() -> nn.Module:
    """A norm without scale and shift."""
    norm = nn.BatchNorm2d(4, affine=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda: Doubled(both=False), 0),
        (lambda: Doubled(both=True), 1),
        (shared_convolution, 2),
        (changed_in_place, 1),
        (own_statistics, 1),
        (plain, 0),
    ],
    ids=["one user", "two users", "runs twice", "changed in place", "statistics of its input", "no scale"],
)
def test_a_norm_is_folded_only_where_that_changes_nothing(build: Callable[[], nn.Module], left: int) -> None:
    torch.manual_seed(0)
    network = build().double().eval().requires_grad_(False)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    assert_folds(network, left, noise(1, 3, 16, 16))


def test_weights_are_rounded_once() -> None:
    """In float32 each filter is the float64 product, rounded: no more than half a unit in the last place away."""
    torch.manual_seed(0)
    network = prepared(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), torch.float32)
    conv, norm = network[0], network[1]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    folded: Any = fold_batch_norms(network, noise(1, 3, 8, 8, dtype=torch.float32))
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    wanted = (conv.weight.double() * scale[:, None, None, None]).float()
    assert isinstance(folded[0], nn.Conv2d) and torch.equal(folded[0].weight, wanted)
