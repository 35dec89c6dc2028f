"""Networks to begin with: of MAE's pretraining, of a classifier, and files that fit neither."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.checkpoints.position_embeddings import resize_position_embedding
from tests.training.finetuning.networks import TINY, tiny_vit
from training.finetuning.start import CLASSIFIER_STD, Start, starting_network

NAME = "vit_tiny_patch16_224"
HEAD = ("head.weight", "head.bias")


def begun(weights: Path, classes: int = 12, **arguments: Any) -> Start:
    return starting_network(NAME, TINY | arguments, classes, weights)


def encoder(**arguments: Any) -> dict[str, Tensor]:
    """Tensors of a pretrained network, without its classifier."""
    state = tiny_vit(seed=3, **arguments).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(each.shape, generator=generator) for name, each in state.items() if name not in HEAD}


def saved(file: Path, state: dict[str, Tensor]) -> Path:
    """A file as MAE's scripts write it."""
    torch.save({"model": state, "epoch": 3, "args": Namespace(lr=1.0)}, file)
    return file


def assert_taken(network: nn.Module, state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_pretraining_gets_a_classifier_of_next_to_nothing(tmp_path: Path) -> None:
    state = encoder()
    start = begun(saved(tmp_path / "mae.pth", state), classes=500)
    assert start.new == HEAD and start.unused == ()
    assert_taken(start.network, state)
    weight, bias = (start.network.state_dict()[name] for name in HEAD)
    assert float(weight.std()) == pytest.approx(CLASSIFIER_STD, rel=0.05) and not bias.any()
    assert float(weight.abs().max()) > 2 * CLASSIFIER_STD


def test_a_decoder_is_left_behind(tmp_path: Path) -> None:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 17, 8)}
    start = begun(saved(tmp_path / "mae.pth", encoder() | decoder))
    assert start.unused == ("decoder_pos_embed", "mask_token")
    assert_taken(start.network, encoder())


def test_average_pooling_begins_with_a_norm_of_its_own(tmp_path: Path) -> None:
    """As in MAE, where the norm of the pretraining is left unused."""
    state = encoder()
    start = begun(saved(tmp_path / "mae.pth", state), global_pool="avg")
    assert start.new == ("fc_norm.weight", "fc_norm.bias", *HEAD)
    assert start.unused == ("norm.bias", "norm.weight")
    norm: Any = start.network.get_submodule("fc_norm")
    assert (norm.weight == 1).all() and (norm.bias == 0).all()
    assert_taken(start.network, {name: each for name, each in state.items() if not name.startswith("norm.")})


@pytest.mark.parametrize("size", [48, 24])
def test_position_embeddings_are_resized_as_by_mae(size: int, tmp_path: Path) -> None:
    state = encoder()
    start = begun(saved(tmp_path / "mae.pth", state), img_size=size)
    wanted = resize_position_embedding(state["pos_embed"], (size // 8, size // 8), prefix_tokens=1)
    assert torch.equal(start.network.state_dict()["pos_embed"], wanted)


def test_a_classifier_of_as_many_classes_is_kept_and_another_is_made_anew(tmp_path: Path) -> None:
    network = tiny_vit(classes=4, seed=3)
    file = saved(tmp_path / "trained.pth", network.state_dict())
    same, other = begun(file, classes=4), begun(file, classes=5)
    assert (same.new, same.unused) == ((), ())
    assert_taken(same.network, network.state_dict())
    assert (other.new, other.unused) == (HEAD, ("head.bias", "head.weight"))


def test_a_network_with_batch_norms(tmp_path: Path) -> None:
    small = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}
    trained = starting_network("resnet18", small, 4).network
    file = saved(tmp_path / "resnet.pth", trained.state_dict())
    start = starting_network("resnet18", small, 3, file, drop_path=0.1)
    assert start.new == ("fc.weight", "fc.bias")
    assert_taken(
        start.network, {name: each for name, each in trained.state_dict().items() if not name.startswith("fc.")}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.norm1.weight"), "missing: blocks.1.norm1.weight"),
        (lambda state: state.update({"blocks.7.extra": torch.zeros(2)}), "unexpected: blocks.7.extra"),
        (lambda state: state.update({"cls_token": torch.zeros(1, 1, 4)}), r"wrongly shaped: cls_token \(wanted"),
        (lambda state: state.pop("norm.weight"), "missing: norm.weight"),
    ],
)
def test_a_file_of_another_network_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    state = encoder()
    change(state)
    with pytest.raises(CheckpointError, match=f"does not fit the network.*{message}"):
        begun(saved(tmp_path / "mae.pth", state))


def test_an_unknown_model_and_a_network_without_drop_path_are_refused() -> None:
    with pytest.raises(ArgumentError, match="architecture: wanted timm/ and the name"):
        starting_network("vit_tiny_patch17", {}, 3)
    with pytest.raises(ArgumentError, match="drop_path"):
        starting_network("vgg11", {}, 3, drop_path=0.1)
