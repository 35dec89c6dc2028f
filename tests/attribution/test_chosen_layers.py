"""Layers that methods choose or are given, in networks that run, change or read them otherwise than a plain stage."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import imagexplain.attribution as library
from imagexplain.attribution.network.layers import default_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from tests.attribution.networks import pictures, prepared, tiny_cnn, vit

CAMS = [name for name in library.METHODS if name.endswith("_cam") or name == "grad_cam_plusplus"]


class Tutorial(nn.Module):
    """The layout of a common first network: one pool for all stages, ReLUs as functions."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 5)
        self.pool, self.head = nn.MaxPool2d(2, 2), nn.Linear(6 * 25, 4)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.first(x), inplace=self.inplace))
        x = self.pool(F.relu(self.second(x), inplace=self.inplace))
        return self.head(x.flatten(1))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("method", CAMS)
def test_a_pool_that_runs_twice_is_not_the_default(method: str, inplace: bool) -> None:
    torch.manual_seed(0)
    model = prepared(Tutorial(inplace))
    assert default_layer(model, pictures(1)) is model.second
    maps = getattr(library, method)(model, pictures(2), [1, 3])
    assert maps.shape == (2, 1, 32, 32) and maps.isfinite().all()
    torch.testing.assert_close(maps, getattr(library, method)(model, pictures(2), [1, 3], layer="second"))


DEFAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "xcit": (lambda: timm.create_model("xcit_nano_12_p16_224", num_classes=5, img_size=64), "cls_attn_blocks.1.norm1"),
    "tnt": (lambda: timm.create_model("tnt_s_patch16_224", num_classes=5, img_size=64), "blocks.11.norm_out"),
    "crossvit": (lambda: timm.create_model("crossvit_9_240", num_classes=5), "blocks.2.fusion.0.norm1"),
    "volo": (lambda: timm.create_model("volo_d1_224", num_classes=5, img_size=64), "post_network.1.norm1"),
    "cait": (lambda: timm.create_model("cait_xxs24_224", num_classes=5, img_size=64), "blocks_token_only.1.norm1"),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 2), 8, num_classes=5), "features.denseblock2"),
    "squeezenet": (lambda: torchvision.models.squeezenet1_0(num_classes=5), "classifier.2"),
}


@pytest.mark.parametrize("network", DEFAULTS)
def test_default_layer(network: str) -> None:
    torch.manual_seed(0)
    build, expected = DEFAULTS[network]
    model, images = prepared(build()), pictures(1, (240, 240) if network == "crossvit" else (64, 64))
    assert default_layer(model, images) is model.get_submodule(expected)
    _, activation = scores_and_activation(model, images, model.get_submodule(expected))
    layout = stated_layout(model, model.get_submodule(expected), activation.shape, images.shape)
    assert layout.prefix == (1 if activation.ndim == 3 else None)
    assert network != "crossvit" or (layout.height, layout.width) == (14, 14)  # its second branch's


def test_a_layer_that_is_changed_in_place_afterwards() -> None:
    """The peer sees what the ReLU left of the output, and the gradient before the ReLU: the map of the ReLU's output.
    Ours is that of the layer as it is named, whether or not the ReLU writes into it."""

    class Last(nn.Module):
        def __init__(self, inplace: bool, module: bool = False) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.norm, self.head = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), nn.Linear(6, 4)
            self.relu, self.inplace, self.module = nn.ReLU(), inplace, module

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(x)
            x = self.relu(x) if self.module else F.relu(x, inplace=self.inplace)
            return self.head(x.mean((2, 3)))

    images, classes = pictures(2, (16, 12)), [1, 3]
    apart, within, module = (prepared(Last(*flags)) for flags in ((False,), (True,), (False, True)))
    for other in (within, module):
        other.load_state_dict(apart.state_dict())
    own = library.xgrad_cam(apart, images, classes, layer="norm")
    torch.testing.assert_close(library.xgrad_cam(within, images, classes, layer="norm"), own)

    def peers(model: nn.Module) -> np.ndarray:
        with import_module("pytorch_grad_cam").XGradCAM(model, [model.norm]) as peer:
            return peer(images.clone().requires_grad_(), [partial(lambda c, scores: scores[c], c) for c in classes])

    def scaled(maps: Tensor) -> np.ndarray:
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        return ((maps - low) / (high - low)).squeeze(1).numpy()

    rectified = library.xgrad_cam(module, images, classes, layer="relu")
    assert np.abs(peers(apart) - scaled(own)).max() < 2e-6
    assert np.abs(peers(within) - scaled(rectified)).max() < 2e-6
    assert np.abs(scaled(rectified) - scaled(own)).max() > 0.05


class Aside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.aside, self.main, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
        self.shared, self.several = nn.ReLU(), Several()

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        x = self.shared(self.main(self.shared(x)))
        return (x + self.several(x)["maps"]).mean((2, 3))


class Several(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"maps": x}


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("aside", "on which the scores depend, got"),
        ("unused", "ran 0 times"),
        ("shared", "ran 2 times"),
        ("several", "got a dict"),
    ],
)
@pytest.mark.parametrize("trainable", [False, True])
def test_layers_that_no_map_can_be_made_of(method: str, layer: str, message: str, trainable: bool) -> None:
    model = nn.Sequential(Aside()).double().eval().requires_grad_(trainable)
    with pytest.raises(ValueError, match=f"^layer: wanted one .*{message}"):
        getattr(library, method)(model, pictures(2, (4, 4)), 0, layer=f"0.{layer}")


LAYERED = [*(name for name in CAMS if name != "guided_grad_cam"), "fem"]
"""Methods that need no graph of what comes before their layer."""


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("method", LAYERED)
def test_a_graph_begins_at_the_layer(method: str, create_graph: bool) -> None:
    model = prepared(Tutorial(inplace=True)).requires_grad_(True)
    if create_graph and "create_graph" not in signature(getattr(library, method)).parameters:
        pytest.skip("its maps are not differentiable")
    options = {"create_graph": True} if create_graph else {}
    graphs: list[bool] = []
    model.first.register_forward_hook(lambda *call: graphs.append(call[-1].requires_grad))
    getattr(library, method)(model, pictures(2), [1, 3], layer="second", **options)
    assert set(graphs) == {create_graph} and all(parameter.requires_grad for parameter in model.parameters())


class OwnMode(nn.Module):
    """A network that sets the mode of gradients itself, for what comes before its head and for the head."""

    def __init__(self, of_body: bool | None, of_head: bool | None) -> None:
        super().__init__()
        self.body, self.head = tiny_cnn()[:5], tiny_cnn()[5:]
        self.of_body, self.of_head = of_body, of_head

    def forward(self, x: Tensor) -> Tensor:
        for part, mode in ((self.body, self.of_body), (self.head, self.of_head)):
            with nullcontext() if mode is None else torch.set_grad_enabled(mode):
                x = part(x)
        return x


@pytest.mark.parametrize("method", LAYERED)
@pytest.mark.parametrize("of_body", [None, False, True])
@pytest.mark.parametrize("of_head", [None, False, True])
def test_models_that_set_the_mode_themselves(method: str, of_body: bool | None, of_head: bool | None) -> None:
    model, images, explain = OwnMode(of_body, of_head), pictures(2, (8, 8)), getattr(library, method)
    for trainable in (False, True):  # which says nothing of the image
        model.requires_grad_(trainable)
        if "gradients" in library.METHODS[method].needs and False in (of_body, of_head):
            with pytest.raises(ValueError, match=r"^model: wanted scores that autograd knows"):
                explain(model, images, [1, 3], layer="body.3")
        else:
            plain = explain(OwnMode(None, None), images, [1, 3], layer="body.3")
            torch.testing.assert_close(explain(model, images, [1, 3], layer="body.3"), plain)


def test_places_that_only_the_class_token_is_read_beside() -> None:
    for method in (library.grad_cam, library.layer_cam, library.xgrad_cam):
        with pytest.raises(ValueError, match=r"^layer: wanted one on whose places the scores depend, got .* 1 tokens"):
            method(vit(), pictures(2), 1, layer="norm")
