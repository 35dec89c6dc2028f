"""ViTs from checkpoints as MAE's fine-tuning leaves them, against what its own network computed."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import deterministic
from imagexplain import models
from imagexplain.archive.spec import ClassifierFile, PreprocessSpec, load
from imagexplain.checkout import ROOT
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.position_embeddings import resize_position_embedding
from imagexplain.models.checkpoints.vit_keys import NoClassifierError
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.models.reference import FIXTURES, shapes
from tests.models.same import assert_close_outputs, assert_same_network

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
POSITIONS_SCALE = 50
"""Factor of the reference's position embeddings, without which they would hardly count."""


def places_spec() -> ClassifierFile:
    spec = load(ROOT / "archive_specs" / "places_full.yaml")
    assert isinstance(spec, ClassifierFile)
    return spec


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / "egdd" / f"{name}.npz") as content:
        return {key: torch.from_numpy(content[key]) for key in content.files}


def tiny(pooling: str = "token", **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, global_pool=pooling, **TINY | arguments
    )
    return network.eval()


def built(state: dict[str, Tensor], **arguments: Any) -> nn.Module:
    return models.build("timm/vit_tiny_patch16_224", state, TINY | arguments)


@pytest.mark.parametrize("pooling", ["class_token", "average"])
def test_equals_the_network_that_mae_fine_tunes(pooling: str) -> None:
    """All 152 tensors of ViT-B/16, by the architecture of the spec; the pooling is told by the names."""
    wanted = shapes(f"egdd/keys_{pooling}.json")
    assert sum(np.prod(shape) for shape in wanted.values()) == 85_807_884
    state = deterministic.state(wanted)
    state["pos_embed"] = state["pos_embed"] * POSITIONS_SCALE
    architecture = places_spec().architecture.name
    assert architecture is not None
    network = models.build(architecture, state)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == wanted
    expected = arrays(f"vit_base_{pooling}")
    for image in ("image32", "image48x40"):
        x = arrays(f"input_{image}")["x"][None]
        with torch.no_grad():
            tokens = network.forward_features(x)  # type: ignore[operator]
            feature = network.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
            logits = network(x)
        assert_close_outputs(feature[0], expected[f"{image}_feature"])
        assert_close_outputs(logits[0], expected[f"{image}_logits"])
        assert_close_outputs(logits[0].softmax(0), expected[f"{image}_probs"])


@pytest.mark.parametrize("image", ["image32", "image48x40"])
def test_photos_are_prepared_as_by_mae(image: str) -> None:
    """A shorter side of 256, bicubic, the middle 224, ImageNet's mean and deviation."""
    settings = PreprocessSpec.model_validate(places_spec().preprocess)
    photo = Image.fromarray(np.load(FIXTURES / f"{image}.npy"))
    given, _ = apply(photo, Preprocess(**settings.model_dump()))
    torch.testing.assert_close(given, arrays(f"input_{image}")["x"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_the_file_of_a_training_script(pooling: str, tmp_path: Path) -> None:
    network, file = tiny(pooling), tmp_path / "checkpoint-99.pth"
    optimizer = torch.optim.AdamW(network.parameters()).state_dict()
    content = {"model": network.state_dict(), "optimizer": optimizer, "epoch": 99, "scaler": {"scale": 65536.0}}
    torch.save(content | {"args": Namespace(model="vit_base_patch16", global_pool=pooling == "avg")}, file)
    found = built(checkpoint.read(file))
    assert found.global_pool == pooling
    assert_same_network(found, network, torch.rand(2, 3, 32, 32))


def test_a_pooling_by_the_spec_wins_over_the_names() -> None:
    state = dict(tiny("token").state_dict())
    with pytest.raises(checkpoint.CheckpointError) as error:
        built(state, global_pool="avg")
    assert (error.value.missing, error.value.unexpected) == (
        ("fc_norm.weight", "fc_norm.bias"),
        ("norm.weight", "norm.bias"),
    )


@pytest.mark.parametrize("size", [16, 48, [24, 56], [16, 64]])
def test_positions_of_another_grid_are_resized_as_by_mae(size: int | list[int]) -> None:
    """The last has as many patches as the checkpoint's grid of 4 by 4, in two rows."""
    state = dict(tiny().state_dict())
    state["pos_embed"] = torch.randn(1, 1 + 4 * 4, 24)
    found = built(state, img_size=size)
    assert isinstance(found.pos_embed, Tensor)
    height, width = (size, size) if isinstance(size, int) else size
    assert found.pos_embed.shape == (1, 1 + height * width // 64, 24)
    wanted = resize_position_embedding(state["pos_embed"], (height // 8, width // 8), prefix_tokens=1)
    assert torch.equal(found.pos_embed, wanted)
    assert found(torch.rand(1, 3, height, width)).shape == (1, 5)


@pytest.mark.parametrize("decoder", [False, True])
def test_a_pretrained_network_wants_fine_tuning_first(decoder: bool) -> None:
    """MAE's published encoder, and its whole autoencoder."""
    state = {name: tensor for name, tensor in tiny().state_dict().items() if not name.startswith("head.")}
    if decoder:
        state |= {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.weight": torch.zeros(16, 24)}
    message = r"without a classifier \(wanted head\.bias, head\.weight\).* by `imagexplain finetune`"
    with pytest.raises(NoClassifierError, match=message):
        built(state)
    with pytest.raises(NoClassifierError, match=message):
        built(state, global_pool="avg")


def test_another_network_is_not_taken_for_a_pretrained_one() -> None:
    state = {name: tensor for name, tensor in tiny().state_dict().items() if "head" not in name and "mlp" not in name}
    with pytest.raises(checkpoint.CheckpointError, match=r"missing: .*mlp") as error:
        built(state)
    assert not isinstance(error.value, NoClassifierError)


def test_the_recorded_names_are_those_of_the_two_poolings() -> None:
    names = {pooling: set(shapes(f"egdd/keys_{pooling}.json")) for pooling in ("class_token", "average")}
    assert len(names["class_token"]) == len(names["average"]) == 152
    assert {name.replace("fc_norm.", "norm.") for name in names["average"]} == names["class_token"]
    assert all(dtype == "float32" for *_, dtype in json.loads((FIXTURES / "egdd/keys_average.json").read_text()))
