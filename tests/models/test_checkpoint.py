import io
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.classifiers import bit, lanet
from tests.models.same import assert_same_tensors, assert_same_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(7)}


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return lanet.export(lanet.LaNet(channels=4, layers=3, classes=5))


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model_state_dict": STATE, "epoch": 3},
        {"state_dict": STATE, "optimizer": {"lr": 0.1}},
        {"model": STATE, "step": 5},
        {f"module.{name}": tensor for name, tensor in STATE.items()},
        {"model_state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
        {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in STATE.items()},
        {name: torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) for name, tensor in STATE.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin", ".pth.tar"])
def test_reads_what_training_scripts_save(content: dict, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(content, path)
    assert_same_tensors(checkpoint.read(path), STATE)


def test_reads_safetensors_and_arrays(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    np.savez(tmp_path / "weights.npz", **_arrays(STATE))
    assert_same_tensors(checkpoint.read(tmp_path / "weights.safetensors"), STATE)
    assert_same_tensors(checkpoint.read(str(tmp_path / "weights.npz")), STATE)


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    mixed = {"module.a": torch.zeros(1), "a": torch.ones(1)}
    torch.save(mixed, tmp_path / "weights.pth")
    assert_same_tensors(checkpoint.read(tmp_path / "weights.pth"), mixed)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(suffix: str, kept: float, tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(1000)}
    path = tmp_path / f"weights{suffix}"
    match suffix:
        case ".pth":
            torch.save(tensors, path)
        case ".npz":
            np.savez(path, **_arrays(tensors))
        case _:
            save_file(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=rf"^weights\{suffix}: "):
        checkpoint.read(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_not_executed(legacy: bool, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    torch.save({"w": Hostile(harm)}, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"weights\.pth: damaged, or holds more than tensors"):
        checkpoint.read(tmp_path / "weights.pth")
    assert not harm.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bare_pickle_is_not_executed(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    for suffix in (".pth", ".npz", ".safetensors"):
        (tmp_path / f"weights{suffix}").write_bytes(pickle.dumps(Hostile(harm)))
        with pytest.raises(CheckpointError):
            checkpoint.read(tmp_path / f"weights{suffix}")
    objects = np.empty(1, dtype=object)
    objects[0] = Hostile(harm)
    np.savez(tmp_path / "objects.npz", weights=objects)
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "objects.npz")
    assert not harm.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1), "epoch": 3}, r"wanted tensors only; given: epoch \(int\)"),
        ([torch.zeros(1)], "wanted a mapping of names to tensors, given list"),
        ({"model_state_dict": {}}, "wanted tensors only; given none"),
    ],
)
def test_what_is_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path / "weights.pth")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    torch.save({3: torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="wanted text as names"):
        checkpoint.read(tmp_path / "weights.pth")


def test_unknown_suffix_and_absent_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"wanted one of \.safetensors.*given \.h5"):
        checkpoint.read(tmp_path / "weights.h5")
    for suffix in (".pth", ".npz", ".safetensors"):
        with pytest.raises(FileNotFoundError):
            checkpoint.read(tmp_path / f"absent{suffix}")


def test_half_precision_comes_back_as_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in state.items()}
    save_file(halves, tmp_path / "weights.safetensors")
    exported = lanet.export(models.build("lanet", checkpoint.read(tmp_path / "weights.safetensors")))
    assert_same_tensors(exported, {name: tensor.float() for name, tensor in halves.items()})
    assert_same_tensors(lanet.export(models.build("lanet", halves)), exported)


def test_every_key_is_accounted_for(state: dict[str, Tensor]) -> None:
    changed = {name: tensor for name, tensor in state.items() if name != "classifier.bias"}
    changed |= {"extra": torch.zeros(1), "stem.1.bias": torch.zeros(13)}
    with pytest.raises(CheckpointError) as caught:
        models.build("lanet", changed)
    error = caught.value
    assert error.missing == ("classifier.bias",)
    assert error.unexpected == ("extra",)
    assert error.misshapen == (("stem.1.bias", (12,), (13,)),)
    assert "missing: classifier.bias; unexpected: extra" in str(error)
    assert "wrongly shaped: stem.1.bias (wanted [12], given [13])" in str(error)


def test_half_an_auxiliary_head_is_an_error(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError) as caught:
        models.build("lanet", state | {"auxiliary_head.classifier.bias": torch.zeros(5)})
    assert "auxiliary_head.classifier.weight" in caught.value.missing
    assert not caught.value.unexpected


def test_step_counters_are_ignored(state: dict[str, Tensor]) -> None:
    model = models.build("lanet", state | {"stem.1.num_batches_tracked": torch.tensor(12)})
    assert model.state_dict()["stem.1.num_batches_tracked"] == 0


def test_other_architectures_and_odd_shapes(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"wanted a tensor root\.conv\.weight; given: stem\.0\.weight, .*in all"):
        models.build("bit", state)
    with pytest.raises(CheckpointError, match=r"wanted a tensor stem\.0\.weight; given none"):
        models.build("lanet", {})
    with pytest.raises(CheckpointError, match=r"stem\.0\.weight: wanted 4 dimensions, given \[3\]"):
        models.build("lanet", {"stem.0.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="lanet: the shapes fit no such network: channels: wanted an even"):
        models.build("lanet", state | {"stem.0.weight": torch.zeros(9, 3, 3, 3)})
    narrow = bit.export(bit.bit((1, 1, 1, 1), (128, 128, 128, 128), 32, 2))
    with pytest.raises(CheckpointError, match="bit: the shapes fit no such network: stem: wanted a multiple of 32"):
        models.build("bit", narrow | {"root.conv.weight": torch.zeros(40, 3, 7, 7)})
    with pytest.raises(ValueError, match=r"architecture: wanted one of bit, lanet, .* timm/ .*, given 'vgg'"):
        models.build("vgg", state)


def test_a_state_dict_is_not_changed(state: dict[str, Tensor]) -> None:
    before = io.BytesIO()
    torch.save(state, before)
    model = models.build("lanet", state)
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    before.seek(0)
    assert_same_tensors(state, torch.load(before, weights_only=True))
    assert not any(tensor.requires_grad for tensor in state.values())


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def training(**more: Any) -> dict[str, Any]:
    """What trainers write beside the weights."""
    return {"epoch": 3, "args": Namespace(lr=0.1), "best_acc": np.float64(0.5), "scaler": {"scale": 2.0}, **more}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pth.tar", ".bin"])
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_training_scripts(suffix: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / f"model_best{suffix}"
    torch.save(training(model=STATE), path, _use_new_zipfile_serialization=not legacy)
    assert_same_tensors(checkpoint.read(path), STATE)


def test_the_averaged_weights_and_their_key(tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save(training(state_dict=STATE, state_dict_ema=averaged), tmp_path / "weights.pth.tar")
    found = checkpoint.load(tmp_path / "weights.pth.tar")
    assert_same_tensors(found.tensors, averaged)
    assert (found.taken, found.beside) == ("state_dict_ema", ("state_dict",))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".pkl"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "the pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "a page of HTML or XML"),
        (b"\n <html>", "a page of HTML or XML"),
        (b"<?xml version='1.0'?><Error/>", "a page of HTML or XML"),
    ],
)
def test_what_downloads_leave_instead_of_weights(suffix: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / f"weights{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"^weights\{suffix}: .*{words}"):
        checkpoint.read(tmp_path / f"weights{suffix}")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"weights\.pth: wanted a file, given a folder"):
        checkpoint.read(tmp_path / "weights.pth")


def test_a_download_that_was_cut_off(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes((tmp_path / "weights.pth").read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="an archive without its end, as an interrupted download leaves it"):
        checkpoint.read(tmp_path / "weights.pth")


def test_tensors_that_are_one_are_stored_once(tmp_path: Path) -> None:
    table = torch.arange(6.0)
    state = {"b": table, "a": table, "part": table[:3], "rows": table.reshape(2, 3), "other": table.clone()}
    kept, others = checkpoint.shared(state)
    assert others == {"b": "a"} and kept.keys() == {"a", "part", "rows", "other"}
    assert checkpoint.notes("", {}) == {}
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.clone() for name, tensor in kept.items()}, path, checkpoint.notes("model_ema", others))
    read = checkpoint.read(path)
    assert_same_tensors(read, state)
    assert read["a"].data_ptr() == read["b"].data_ptr()


def test_weights_begin_where_torch_lets_tensors_begin(tmp_path: Path) -> None:
    """The header of this file leaves its tensors at addresses that are no multiples of 64."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))
    state = checkpoint.exported(network)
    apart = []
    for length in range(1, 9):
        save_file(state, tmp_path / "model.safetensors", {"note": "x" * length * 8})
        read = checkpoint.read(tmp_path / "model.safetensors")
        apart += [tensor.data_ptr() % checkpoint.ALIGNMENT for tensor in read.values()]
        with torch.device("meta"):
            empty = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))
        filled = checkpoint.fill(empty, read)
        assert all(tensor.data_ptr() % 64 == 0 for tensor in filled.state_dict().values() if tensor.ndim)
        assert_same_weights(filled, network)
    assert any(apart), "the file itself gives nothing to mend"
