"""FullGrad's biases in the forms in which networks have them, and the networks that are made of more than these."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from imagexplain.attribution.methods.full_grad import full_grad, full_gradient
from tests.attribution.inputs import noise
from tests.attribution.networks import Call, assert_untouched, footprint, pictures, prepared


def network_around(*middle: nn.Module) -> Any:
    """A network with these layers between its convolution and its pooling."""
    torch.manual_seed(0)
    return prepared(nn.Sequential(nn.Conv2d(3, 6, 3), *middle, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)))


def in_place(x: Tensor) -> Tensor:
    x += noise(6, 1, 1)
    return x.relu_()


FORMS: dict[str, Callable[[], list[nn.Module]]] = {
    "norm fused with its activation": lambda: [BatchNormAct2d(6)],
    "norm as a function": lambda: [Call(lambda x: F.batch_norm(x, noise(6), noise(6).exp()).relu())],
    "functions": lambda: [Call(lambda x: F.relu(F.conv2d(x, noise(6, 6, 3, 3), bias=noise(6))))],
    "transposed": lambda: [nn.ConvTranspose2d(6, 6, 2, stride=2), nn.ReLU()],
    "linear over channels-last maps": lambda: [
        Call(lambda x: x.permute(0, 2, 3, 1)),
        nn.Linear(6, 6),
        nn.ReLU(),
        Call(lambda x: x.permute(0, 3, 1, 2)),
    ],
    "parameter added": lambda: [Call(lambda x: (x + nn.Parameter(noise(6, 1, 1), requires_grad=False)).relu())],
    "number taken off": lambda: [Call(lambda x: ((x - 0.4) / 0.2).relu())],
    "taken from a number": lambda: [Call(lambda x: (1 - x).relu())],
    "difference with a factor": lambda: [Call(lambda x: torch.sub(x, noise(6, 1, 1), alpha=2).relu())],
    "added in place": lambda: [Call(in_place)],
    "added to a constant in place": lambda: [Call(lambda x: noise(1, 6, 1, 1).expand_as(x).clone().add_(x).relu())],
    "frozen norm of detectors": lambda: [torchvision.ops.FrozenBatchNorm2d(6), Call(lambda x: (x + 0.3).relu())],
    "affine in one function": lambda: [Call(lambda x: torch.addcmul(noise(6, 1, 1), noise(6, 1, 1), x).relu())],
    "a bound of ReLU6": lambda: [Call(lambda x: x * 20), nn.ReLU6(inplace=True)],
    "a module that runs twice": lambda: [norm := nn.BatchNorm2d(6), nn.ReLU(), norm],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_bias_is_a_part(form: str) -> None:
    model, images = network_around(*FORMS[form]()), pictures(2, (9, 12))
    before = footprint(model)
    parts = full_gradient(model, images, [1, 3])
    assert_untouched(before, model)
    assert parts.relative_residual.max() < 1e-14
    without = parts.score - parts.input.flatten(1).sum(1) - parts.biases[0].flatten(1).sum(1)
    assert (without - parts.biases[-1].flatten(1).sum(1)).abs().min() > 1e-5  # the form's own constants count
    assert full_grad(model, images, [1, 3]).shape == (2, 1, 9, 12)


def test_fused_and_separate_norms_have_one_map() -> None:
    fused, apart = network_around(BatchNormAct2d(6)), network_around(nn.BatchNorm2d(6), nn.ReLU())
    apart[1].load_state_dict(fused[1].state_dict())
    torch.testing.assert_close(full_grad(fused, pictures(2), 1), full_grad(apart, pictures(2), 1))


@pytest.mark.parametrize("size", [(9, 12), (8, 8)])  # of the maps 7 × 10, and 6 × 6 with 6 channels
def test_channels_last_and_channels_first_have_one_map(size: tuple[int, int]) -> None:
    last, first = (
        network_around(*FORMS["linear over channels-last maps"]()),
        network_around(nn.Conv2d(6, 6, 1), nn.ReLU()),
    )
    first[0].load_state_dict(last[0].state_dict())
    first[1].load_state_dict({"weight": last[2].weight[:, :, None, None], "bias": last[2].bias})
    first[-1].load_state_dict(last[-1].state_dict())
    assert [part.shape for part in full_gradient(last, pictures(2, size), 1).biases[:2]] == 2 * [
        (2, 6, size[0] - 2, size[1] - 2)
    ]
    torch.testing.assert_close(full_grad(last, pictures(2, size), 1), full_grad(first, pictures(2, size), 1))


def test_a_normalisation_in_the_model_by_hand() -> None:
    """3 (x − 2) at x = 5: the input has 15, the constant −6."""
    parts = full_gradient(Call(lambda x: 3 * (x - 2).flatten(1)), torch.full((1, 1, 1, 1), 5.0))
    assert (parts.score.item(), parts.input.item(), [part.item() for part in parts.biases]) == (9, 15, [-6])


def test_parameters_may_be_trainable() -> None:
    model, images = network_around(nn.BatchNorm2d(6), nn.ReLU()), pictures(2)
    expected = full_grad(model, images, 1)
    model[0].weight.requires_grad_(True)
    before = footprint(model)
    assert torch.equal(full_grad(model, images, 1), expected)
    assert_untouched(before, model)


@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model("densenet121", num_classes=5, growth_rate=8, block_config=(2, 2)),
        lambda: timm.create_model("regnetx_002", num_classes=5),
        lambda: torchvision.models.DenseNet(8, (2, 2), 8, num_classes=5),
        lambda: torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=5),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_networks(build: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, images = prepared(build(), dtype), pictures(2, (64, 64), dtype)
    assert full_gradient(model, images, 1).relative_residual.max() < (1e-5 if dtype == torch.float32 else 1e-13)
    assert full_grad(model, images, 1).isfinite().all()


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "gates": lambda: timm.create_model("ghostnet_050", num_classes=5),
    "layer norms over channels-last maps": lambda: timm.create_model(
        "convnext_tiny", num_classes=5, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)
    ),
    "windows of attention": lambda: torchvision.models.SwinTransformer(
        [4, 4], 12, [1, 2], [2, 4], [4, 4], num_classes=5
    ),
    "nested attention": lambda: timm.create_model("nest_tiny", num_classes=5, img_size=64),
    "attention with a learned query": lambda: timm.create_model(
        "vit_base_patch16_siglip_224", num_classes=5, img_size=64, embed_dim=24, depth=1, num_heads=2
    ),
    "no function of the image": lambda: Call(lambda x: torch.ones(len(x), 5)),
}


@pytest.mark.parametrize("network", REFUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_refused(network: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = prepared(REFUSED[network](), dtype)
    with pytest.raises(ValueError, match=r"^model: wanted (one whose scores are made of|scores that autograd knows)"):
        full_grad(model, pictures(2, (64, 64), dtype), 2)
