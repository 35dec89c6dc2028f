"""Small networks of the families that class activation maps meet: seeded, in eval(), frozen unless said otherwise."""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from imagexplain.attribution.network.tokens import layout_of
from tests.attribution.inputs import noise


def prepared(network: nn.Module, dtype: torch.dtype = torch.float64) -> Any:
    """In eval(), frozen, and with running statistics that are not 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.to(dtype).eval().requires_grad_(False)


def tiny_cnn(stride: int = 2, dtype: torch.dtype = torch.float64) -> Any:
    """Two convolutions, the second followed by a ReLU in place; then global average pooling and a linear layer."""
    torch.manual_seed(0)
    return prepared(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=stride, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        ),
        dtype,
    )


def resnet(dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return prepared(timm.create_model("resnet10t", num_classes=5, zero_init_last=False), dtype)


def vit(pool: str = "token", size: tuple[int, int] = (32, 32), dtype: torch.dtype = torch.float64, **options) -> Any:
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    options = {"img_size": size, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2, **options}
    return prepared(timm.create_model(name, num_classes=5, global_pool=pool, **options), dtype)


def swin(size: tuple[int, int] = (32, 32), dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return prepared(
        timm.create_model(
            "swin_tiny_patch4_window7_224",
            num_classes=5,
            img_size=size,
            window_size=4,
            embed_dim=12,
            depths=(1, 2),
            num_heads=(2, 4),
        ),
        dtype,
    )


def torchvision_vit() -> Any:
    """torchvision's transformer, whose head it makes of zeros, with another one."""
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5)
    nn.init.normal_(network.heads.head.weight)
    return prepared(network)


def filled(network: Any) -> Any:
    """Fill all parameters of a network with values that follow from their names, whatever a generator would give."""
    for name, parameter in network.named_parameters():
        values = torch.arange(parameter.numel(), dtype=torch.float64) * 0.7 + sum(map(ord, name))
        parameter.data.copy_(values.sin().view_as(parameter) / 2)
    return network


def waves() -> Tensor:
    """Two images of 16 × 16 pixels, likewise."""
    return (torch.arange(2 * 3 * 16 * 16, dtype=torch.float64) * 0.3).sin().view(2, 3, 16, 16)


def float_cnn() -> nn.Module:
    """Two convolutions of float32, each followed by a ReLU, and four classes; not frozen."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)).eval()


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def pictures(count: int = 3, size: tuple[int, int] = (32, 32), dtype: torch.dtype = torch.float64) -> Tensor:
    """Images (count, 3, H, W) of noise, by default of the size of the networks here."""
    return noise(count, 3, *size, seed=1, dtype=dtype)


def footprint(model: nn.Module):
    """What a method must leave as it was: values, gradients, modes, flags and hooks."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        [
            (name, type(module), module.training, getattr(module, "inplace", None))
            for name, module in model.named_modules()
        ],
        [
            sum(len(getattr(module, hooks)) for hooks in vars(module) if hooks.endswith("_hooks"))
            for module in model.modules()
        ],
    )


def assert_untouched(before, model: nn.Module) -> None:
    after = footprint(model)
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])


def to_maps(activation: Tensor, images: Sequence[int], prefix: int | None = None) -> Tensor:
    """View (B, K, h, w) of a layer's output or of its gradient over images (B, C, H, W), without prefix tokens."""
    return layout_of(activation.shape, images, prefix).maps(activation)
