"""Networks made quicker without knowing their code: activations out of place, padding fixed for one size."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from imagexplain.models.optimize.any_network import optimize
from imagexplain.models.optimize.same_padding import fix_same_padding
from tests.attribution.inputs import noise
from tests.attribution.networks import prepared


def scores_and_gradient(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    rows = image.clone().requires_grad_()
    scores = network(rows)
    return scores.detach(), torch.autograd.grad(scores[0, 1], rows)[0]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tf_efficientnet_lite0", (64, 64)),
        ("tf_efficientnet_lite0", (65, 96)),
        ("tf_mobilenetv3_small_minimal_100", (70, 61)),
        ("tf_efficientnet_b0", (64, 64)),  # SiLU; filters of 5 × 5
        ("tf_mixnet_s", (63, 64)),  # several convolutions of one map
    ],
)
def test_networks_of_timm_keep_scores_and_gradients(name: str, size: tuple[int, int]) -> None:
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    network = prepared(timm.create_model(name, num_classes=5)).requires_grad_(False)
    image = noise(1, 3, *size)
    optimized = optimize(network, image)
    padded = [module for module in optimized.modules() if type(module) is Conv2dSame]
    assert not padded and any(type(module) is Conv2dSame for module in network.modules())
    assert not any(
        getattr(module, "inplace", False) for module in optimized.modules() if not isinstance(module, nn.ReLU)
    )
    for other in (image, -2 * image.flip(3)):
        for found, wanted in zip(
            scores_and_gradient(optimized, other), scores_and_gradient(network, other), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("length", range(5, 12))
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 2, 1), (2, 1, 1), (3, 2, 1), (4, 3, 1), (5, 2, 1), (3, 2, 2), (2, 1, 3)]
)
def test_same_padding_of_every_size(length: int, kernel: int, stride: int, dilation: int) -> None:
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    convolution = Conv2dSame(2, 3, kernel, stride, dilation=dilation).double().requires_grad_(False)
    image = noise(1, 2, length, 8)
    fixed = fix_same_padding(nn.Sequential(convolution), image)
    torch.testing.assert_close(fixed(image), convolution(image), rtol=1e-12, atol=1e-12)


class TakesTheMapAgain(nn.Module):
    """A block whose activation changes, in place, what the sum takes again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 3, 1), nn.ReLU6(inplace=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        return self.head((self.conv(self.act(x)) + x).mean((2, 3)))


def test_an_activation_stays_in_place_where_the_network_counts_on_it() -> None:
    torch.manual_seed(0)
    network, image = TakesTheMapAgain().double().eval(), noise(1, 3, 8, 8)
    optimized = optimize(network, image)
    activation = optimized.get_submodule("act")
    assert isinstance(activation, nn.ReLU6) and activation.inplace
    torch.testing.assert_close(optimized(image), network(image))


def test_no_map_is_copied_for_the_way_back() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 3, 1), nn.ReLU6(inplace=True), nn.Conv2d(3, 3, 1), nn.SiLU(inplace=True)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    image = noise(1, 3, 8, 8, dtype=torch.float32)
    rows, copies = image.clone().requires_grad_(), []
    for each in (network, optimize(network, image)):
        with torch.profiler.profile() as seen:
            each(rows)
        copies.append(sum(event.count for event in seen.key_averages() if event.key == "aten::clone"))
    assert copies == [2, 0]
