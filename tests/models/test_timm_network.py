"""Models of timm from checkpoints: against timm's own, with every tensor accounted for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.classifiers import timm_network
from tests.models.same import assert_same_network

TINY: dict[str, dict[str, Any]] = {
    "resnet18.a1_in1k": {"channels": [8, 8, 16, 16]},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "window_size": 4,
        "embed_dim": 12,
        "depths": [2, 2],
        "num_heads": [1, 2],
    },
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "mobilenetv3_small_050": {},
}


def trained(name: str, classes: int = 5) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in TINY[name].items()}
    return timm.create_model(name, num_classes=classes, **arguments).eval()


def example(name: str) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 3, *([32, 32] if "img_size" in TINY[name] else [64, 64]))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", TINY)
def test_a_model_comes_back_from_its_file(name: str, suffix: str, tmp_path: Path) -> None:
    network, file = trained(name), tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, file)
    else:
        save_file(checkpoint.exported(network), file)
    found = models.build(f"timm/{name}", checkpoint.read(file), TINY[name])
    assert not found.training
    assert found(example(name)).shape == (2, 5)
    assert_same_network(found, network, example(name))


def test_names_that_timm_translates() -> None:
    """Swin's authors wrote buffers into their files and had the merging of a stage at its end."""
    network = trained("swin_tiny_patch4_window7_224")
    state = network.state_dict()
    published = {key.replace("layers.1.downsample", "layers.0.downsample"): value for key, value in state.items()}
    published = {key.replace("head.fc.", "head."): value for key, value in published.items()}
    published["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    found = timm_network.build("swin_tiny_patch4_window7_224", published, TINY["swin_tiny_patch4_window7_224"])
    assert_same_network(found, network, example("swin_tiny_patch4_window7_224"))


def test_every_tensor_is_accounted_for() -> None:
    state = dict(trained("resnet18.a1_in1k").state_dict())
    del state["layer1.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        models.build("timm/resnet18", state, TINY["resnet18.a1_in1k"])
    assert (error.value.missing, error.value.unexpected) == (("layer1.0.conv1.weight",), ("layer9.weight",))
    with pytest.raises(CheckpointError, match=r"wrongly shaped: .*bn1"):
        models.build("timm/resnet18", trained("resnet18.a1_in1k").state_dict())


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("timm/resnet19", {}, "architecture: wanted timm/ and the name of one of its models, such as resnet"),
        ("timm/", {}, "architecture: wanted timm/ and the name of one of its models, given ''"),
        ("timm/resnet18", {"colour": 1}, "arguments: resnet18 does not take {'colour': 1}"),
        ("keras/resnet50", {}, "architecture: wanted one of bit, lanet, module, torchscript, exported, onnx, or "),
        ("lanet", {"layers": 3}, "arguments: go with a library's model, lanet takes none"),
    ],
)
def test_what_there_is_not(architecture: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        models.build(architecture, {}, arguments)


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k_ft_in1k", "swin_tiny_patch4_window7_224.ms_in1k"]
)
def test_photos_are_prepared_as_by_timm(name: str) -> None:
    from PIL import Image

    from imagexplain.vision.preprocess import apply
    from imagexplain.vision.preprocess_settings import Preprocess

    photo = Image.effect_noise((300, 260), 60).convert("RGB").resize((600, 500), Image.Resampling.BICUBIC)
    with torch.device("meta"):
        config = resolve_model_data_config(timm.create_model(name))
    expected = create_transform(**config, is_training=False)(photo)
    ours, _ = apply(photo, Preprocess(**timm_network.preprocess(name, {})))
    assert ours.shape == expected.shape
    assert (ours - expected).abs().mean() < 0.02  # of a standard deviation; timm rounds after each of two steps


def test_preprocessing_follows_arguments_and_squashing() -> None:
    assert timm_network.preprocess("vit_tiny_patch16_224", {"img_size": 64})["size"] == (64, 64)
    assert timm_network.preprocess("vit_tiny_patch16_224", {"img_size": [64, 96]})["size"] == (64, 96)
    squashed = timm_network.preprocess("convnext_tiny.fb_in22k_ft_in1k_384", {})
    assert (squashed["size"], squashed["fit"], squashed["crop_fraction"]) == ((384, 384), "stretch", 1.0)
