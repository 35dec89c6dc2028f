"""Models of torchvision from checkpoints: against torchvision's own, with every tensor accounted for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models as published

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.classifiers import torchvision_network
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.models.same import assert_close_outputs, assert_same_network
from tests.wire.photos import noise_photo

SMALL = ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "efficientnet_b0"]
ODD_SIZES = [(301, 457), (640, 333), (97, 1031), (231, 233)]


def trained(name: str, classes: int = 5, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return published.get_model(name, weights=None, num_classes=classes, **arguments).eval()


@pytest.mark.parametrize("name", SMALL)
def test_a_model_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    network, file = trained(name), tmp_path / "model.pth"
    torch.save({"model": network.state_dict(), "epoch": 3}, file)
    found = models.build(f"torchvision/{name}", checkpoint.read(file))
    assert not found.training
    assert_same_network(found, network, torch.rand(2, 3, 64, 64))


def test_a_tag_and_safetensors(tmp_path: Path) -> None:
    network, file = trained("mobilenet_v3_small"), tmp_path / "model.safetensors"
    save_file(checkpoint.exported(network), file)
    found = models.build("torchvision/mobilenet_v3_small.IMAGENET1K_V1", checkpoint.read(file))
    assert_same_network(found, network, torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("auxiliary", [True, False])
def test_heads_for_training_may_be_there_or_not(auxiliary: bool) -> None:
    """Answers are scores alone, of an input in the published weights' range unless the arguments say otherwise."""
    network = trained("googlenet", aux_logits=auxiliary, init_weights=False, transform_input=True)
    images = torch.rand(2, 3, 64, 64)
    assert_same_network(models.build("torchvision/googlenet", network.state_dict()), network, images)
    plain = models.build("torchvision/googlenet", network.state_dict(), {"transform_input": False})
    network.transform_input = False  # type: ignore[assignment]
    with torch.no_grad():
        assert_close_outputs(plain(images), network(images))


def test_every_tensor_is_accounted_for() -> None:
    state = dict(trained("squeezenet1_1").state_dict())
    del state["features.0.weight"]
    state["features.99.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        models.build("torchvision/squeezenet1_1", state)
    assert (error.value.missing, error.value.unexpected) == (("features.0.weight",), ("features.99.weight",))
    with pytest.raises(CheckpointError, match=r"wrongly shaped|missing"):
        models.build("torchvision/squeezenet1_0", trained("squeezenet1_1").state_dict())


@pytest.mark.parametrize(
    "name", published.list_models(module=published, include=["*18", "*small", "vit_b_16", "swin_t"])
)
def test_the_last_layer_is_known(name: str) -> None:
    with torch.device("meta"):
        network = torchvision_network.create(name, {})
        fewer = torchvision_network.create(name, {"num_classes": 7})
    layer = torchvision_network._classifier(network)
    assert fewer.get_submodule(layer).state_dict()["bias"].shape == (7,)


def test_a_vit_says_the_size_of_its_images() -> None:
    with torch.device("meta"):
        outline = torchvision_network.create("vit_b_16", {})
        assert isinstance(outline, published.VisionTransformer)
        state = torchvision_network.create("vit_b_16", {"image_size": 64}).state_dict()
    assert torchvision_network._image_size(state, outline) == {"image_size": 64}
    assert torchvision_network.preprocess("vit_b_16", {"image_size": 64})["size"] == (64, 64)
    assert torchvision_network.preprocess("vit_b_16", {"image_size": 64})["resize"] == 73  # 256 · 64 / 224


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.IMAGENET1K_V1",  # 256, 224
        "resnet50",  # 232, 224
        "efficientnet_b0",  # bicubic
        "efficientnet_b3.IMAGENET1K_V1",  # 320, 300, bicubic
        "inception_v3",  # 342, 299
        "vit_b_16.IMAGENET1K_SWAG_E2E_V1",  # 384, 384, bicubic
        "efficientnet_v2_l",  # 480, 480, another mean
        "swin_t",
    ],
)
def test_photos_are_prepared_as_by_torchvision(name: str) -> None:
    architecture, _, tag = name.partition(".")
    weights = published.get_model_weights(architecture)
    transform = (weights[tag] if tag else weights.DEFAULT).transforms()
    settings = Preprocess(**torchvision_network.preprocess(name, {}))
    for seed, size in enumerate(ODD_SIZES):
        photo = noise_photo(*size, seed)
        torch.testing.assert_close(apply(photo, settings)[0], transform(photo), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet51", {}, "architecture: wanted torchvision/ and the name of one of its classifiers, such as resnet"),
        ("fasterrcnn_resnet50_fpn", {}, "architecture: wanted torchvision/ and the name of one of its classifiers"),
        ("resnet18", {"colour": 1}, "arguments: resnet18 does not take {'colour': 1}"),
        ("resnet18", {"weights": "DEFAULT"}, "arguments: weights: wanted none, for they are a file's"),
    ],
)
def test_what_there_is_not(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        models.build(f"torchvision/{name}", {}, arguments)


def test_a_tag_of_no_weights() -> None:
    wanted = "architecture: wanted a tag of published weights, one of resnet18.IMAGENET1K_V1, given 'resnet18.V9'"
    with pytest.raises(ValueError, match=f"^{re.escape(wanted)}"):
        torchvision_network.preprocess("resnet18.V9", {})
