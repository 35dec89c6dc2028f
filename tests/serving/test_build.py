from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from imagexplain import models
from imagexplain.archive.build import PACKAGES, build_all, model_config
from imagexplain.archive.spec import SpecError, select
from imagexplain.cli.build import main
from imagexplain.models.checkpoints import checkpoint
from imagexplain.ops.check_archive import check
from imagexplain.ops.server import ROOT
from tests.serving.archives import write_spec

TENSORMASK = ROOT / "archive_specs" / "weights" / "tensormask_scenes.safetensors"
LABELS = [f"class {index}" for index in range(10)]
MEMBERS = {"MAR-INF/MANIFEST.json", "model-config.yaml", "model.safetensors", "spec.json", "methods.json"}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec with weights of a network that is a single matrix, in a half precision that holds them exactly."""
    path = write_spec(tmp_path, labels=LABELS)
    weight = torch.arange(10 * 3 * 32 * 32).reshape(10, -1) % 7
    save_file({"1.weight": weight.half(), "1.bias": torch.full((10,), 0.1)}, tmp_path / "small.safetensors")

    def build(architecture: str, state: dict[str, torch.Tensor], arguments: dict[str, Any]) -> torch.nn.Module:
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        network.load_state_dict(state)
        return network

    monkeypatch.setattr(models, "build", build)
    return path


def members(archive: Path) -> dict[str, bytes]:
    """The files of an archive."""
    with zipfile.ZipFile(archive) as content:
        return {name: content.read(name) for name in content.namelist()}


def test_an_archive_is_self_contained(spec: Path, tmp_path: Path) -> None:
    (archive,) = build_all([spec], tmp_path / "store")
    files = members(archive)
    package = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for kind in ("py", "json")
        for path in (ROOT / name).rglob(f"*.{kind}")
    }
    assert set(files) == package | MEMBERS
    manifest: dict[str, Any] = json.loads(files["MAR-INF/MANIFEST.json"])
    assert manifest["model"]["handler"] == "handlers.classifier"
    assert manifest["model"]["modelName"] == "small"
    assert manifest["sha256"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "MAR-INF/MANIFEST.json"
    }
    assert check(archive) == ("small", "1.0")
    assert json.loads(files["spec.json"])["labels"] == LABELS
    supported = json.loads(files["methods.json"])["supported"]
    assert {"integrated_gradients", "rise", "xrai"} <= set(supported)
    assert "attention_rollout" not in supported, "of a network that is a single matrix"
    assert yaml.safe_load(files["model-config.yaml"])["responseTimeout"] == 120
    (tmp_path / "packed.safetensors").write_bytes(files["model.safetensors"])
    packed = load_file(tmp_path / "packed.safetensors")
    assert packed["1.weight"].dtype == torch.float16
    assert packed["1.bias"].dtype == torch.float32


def test_the_same_inputs_give_the_same_bytes(spec: Path, tmp_path: Path) -> None:
    (first,) = build_all([spec], tmp_path / "first")
    (second,) = build_all([spec], tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_an_archive_is_built_again_only_when_an_input_changed(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    (archive,) = build_all([spec], store)
    before = archive.read_bytes()
    capsys.readouterr()
    build_all([spec], store)
    assert "up to date" in capsys.readouterr().out
    archive.write_bytes(b"torn")
    build_all([spec], store)
    assert archive.read_bytes() == before
    write_spec(tmp_path, labels=LABELS, explain={"steps": 20})
    save_file({"1.weight": torch.ones(10, 3 * 32 * 32), "1.bias": torch.zeros(10)}, tmp_path / "small.safetensors")
    build_all([spec], store)
    assert archive.read_bytes() != before


def test_a_users_variables_hold_until_they_are_given_again(spec: Path, tmp_path: Path) -> None:
    store, own = tmp_path / "store", tmp_path / "own.safetensors"
    save_file({"1.weight": torch.ones(10, 3 * 32 * 32), "1.bias": torch.ones(10)}, own)
    full = write_spec(tmp_path, "full.yaml", labels=LABELS, weights={"environment": "OWN"}, description="own")

    def description(environ: dict[str, str]) -> str:
        (archive,) = build_all([spec, full], store, environ=environ)
        return str(json.loads(members(archive)["spec.json"])["description"])

    assert description({}) == ""
    assert description({"OWN": str(own)}) == "own"
    assert description({}) == "own"
    assert description({"OWN": ""}) == ""
    assert description({}) == ""


def test_a_method_by_default_is_one_that_the_model_supports(spec: Path, tmp_path: Path) -> None:
    unsupported = write_spec(tmp_path, labels=LABELS, explain={"method": "attention_rollout"})
    wanted = r"small\.yaml: explain\.method: wanted a method that the model supports, got attention_rollout: "
    with pytest.raises(SpecError, match=wanted):
        build_all([unsupported], tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.mar"))


def test_labels_must_match_the_weights(spec: Path, tmp_path: Path) -> None:
    write_spec(tmp_path, labels=["cat", "dog"])
    with pytest.raises(SpecError, match=r"small\.yaml: labels: the weights have 10 classes, given are 2 labels"):
        build_all([spec], tmp_path / "store")


def test_an_error_of_a_library_is_not_taken_for_the_specs(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text may begin like a field's name; only the type of an error says that a field is wrong."""

    def build(*_: object) -> torch.nn.Module:
        raise ValueError("labels: a word of torch's own")

    monkeypatch.setattr(models, "build", build)
    with pytest.raises(SpecError, match=r"small\.yaml: weights: .*small\.safetensors: labels: a word of torch's own"):
        build_all([spec], tmp_path / "store")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = write_spec(tmp_path, labels=LABELS)
    save_file({"odd": torch.zeros(2)}, tmp_path / "small.safetensors")
    with pytest.raises(SpecError, match=r"small\.yaml: weights: .*small\.safetensors: "):
        build_all([path], tmp_path / "store")


def without_weights(tmp_path: Path, weights: Path, **changes: Any) -> str:
    """Why no TensorMask archive is built from these weights."""
    content = {"name": "tensormask", "handler": "segmenter", "labels": ["cat", "dog"], "weights": str(weights)}
    spec = tmp_path / "tensormask.yaml"
    spec.write_text(yaml.safe_dump(content | changes))
    with pytest.raises(SpecError) as caught:
        build_all([spec], tmp_path / "store", environ={})
    assert not (tmp_path / "store" / "tensormask.mar").exists()
    told = str(caught.value)
    assert told.startswith(f"{spec}: weights: {weights}: ")
    return told


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    weights = ROOT / "archive_specs" / "weights"
    told = without_weights(tmp_path, weights / "bit_scenes.safetensors")
    assert "wanted a tensor backbone.bottom_up." in told and "given: body.block1.unit01.conv1.weight" in told
    config = str(ROOT / "archive_specs" / "configs" / "swin_scenes.py")
    told = without_weights(tmp_path, weights / "tensormask_scenes.safetensors", engine="mmdet", config=config)
    assert "missing" in told and "backbone.patch_embed.projection.weight" in told and "unexpected" in told


class _Harm:
    """A pickle of it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def test_a_pickle_that_is_damaged_or_runs_code(tmp_path: Path) -> None:
    file, harm = tmp_path / "model_final.pkl", tmp_path / "harm"
    arrays = {name: tensor.numpy() for name, tensor in load_file(TENSORMASK).items()}
    whole = pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}, 2)
    for size in (0, 1, 1000, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        without_weights(tmp_path, file)
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": _Harm(harm)}, 2))
    assert "posix.mkdir" in without_weights(tmp_path, file)
    assert not harm.exists()
    pickle.loads(file.read_bytes())
    assert harm.is_dir(), "the pickle would have done nothing"


def test_the_command_says_what_is_wrong(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_spec(tmp_path, colour="red")
    assert main([str(spec), "--store", str(tmp_path / "store")]) == 1
    assert "small.yaml: colour" in capsys.readouterr().err


def test_model_config_asks_for_a_gpu_and_the_specs_limits(tmp_path: Path) -> None:
    (archive,) = select([write_spec(tmp_path, serving={"workers": 2, "batch_size": 8, "response_timeout_s": 300})], {})
    config = model_config(archive.model)
    assert (config["minWorkers"], config["maxWorkers"], config["batchSize"]) == (2, 2, 8)
    assert (config["responseTimeout"], config["deviceType"]) == (300, "gpu")


def metadata_of(archive: Path, folder: Path) -> dict[str, str]:
    """What the archive's weights say about themselves."""
    (folder / "packed.safetensors").write_bytes(members(archive)["model.safetensors"])
    with safe_open(folder / "packed.safetensors", framework="pt") as file:
        return dict(file.metadata() or {})


def test_averaged_weights_are_packed_and_it_is_told_and_noted(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = {"1.weight": torch.zeros(10, 3 * 32 * 32), "1.bias": torch.zeros(10)}
    averaged = {name: tensor + 1 for name, tensor in raw.items()}
    content = {"state_dict": raw, "state_dict_ema": averaged, "args": Namespace(lr=0.1), "metric": np.float64(0.5)}
    torch.save(content, tmp_path / "best.pth.tar")
    write_spec(tmp_path, labels=LABELS, weights="best.pth.tar")
    (archive,) = build_all([spec], tmp_path / "store", environ={})
    assert (
        "small: the weights are best.pth.tar's state_dict_ema (averaged), not its state_dict" in capsys.readouterr().out
    )
    assert json.loads(metadata_of(archive, tmp_path)["checkpoint"]) == {"taken": "state_dict_ema"}
    assert load_file(tmp_path / "packed.safetensors")["1.bias"].tolist() == [1.0] * 10
    (again,) = build_all([spec], tmp_path / "again", environ={})
    assert again.read_bytes() == archive.read_bytes()


def test_a_tensor_of_many_names_is_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.randn(10, 3 * 32 * 32)
    tied = {f"{index}.weight": table for index in range(60)}

    class Tied(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) @ table.T

    monkeypatch.setattr(models, "build", lambda *_: Tied())
    spec = write_spec(tmp_path, labels=LABELS, weights="tied.pth")
    torch.save({"model": tied}, tmp_path / "tied.pth")
    archives = [build_all([spec], tmp_path / store, environ={})[0] for store in ("first", "second")]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    (tmp_path / "packed.safetensors").write_bytes(members(archives[0])["model.safetensors"])
    assert (tmp_path / "packed.safetensors").stat().st_size < 1.1 * table.nbytes
    read = checkpoint.read(tmp_path / "packed.safetensors")
    assert read.keys() == tied.keys() and all(torch.equal(tensor, table) for tensor in read.values())


def test_archives_that_had_nothing_to_note_keep_their_bytes(spec: Path, tmp_path: Path) -> None:
    (archive,) = build_all([spec], tmp_path / "store", environ={})
    assert metadata_of(archive, tmp_path) == {}


def test_variables_of_specs_that_are_not_built_are_kept(spec: Path, tmp_path: Path) -> None:
    store, own = tmp_path / "store", tmp_path / "own.safetensors"
    save_file({"1.weight": torch.ones(10, 3 * 32 * 32), "1.bias": torch.ones(10)}, own)
    full = write_spec(tmp_path, "full.yaml", labels=LABELS, weights={"environment": "OWN"}, description="own")
    other = write_spec(tmp_path, "other.yaml", name="other", labels=LABELS, weights={"environment": "OTHER"})
    build_all([spec, full, other], store, environ={"OWN": str(own)})
    build_all([other], store, environ={"OTHER": str(own)})
    archives = build_all([spec, full, other], store, environ={})
    assert [json.loads(members(archive)["spec.json"])["description"] for archive in archives] == ["", "own"]
    (store / ".variables.json").write_text("torn")
    with pytest.raises(SpecError, match=r"\.variables\.json: not JSON"):
        build_all([spec], store, environ={})


def test_one_that_cannot_be_built_stops_none_of_the_others(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    damaged = write_spec(tmp_path, "a.yaml", name="a", labels=LABELS, weights="a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "small.safetensors").read_bytes())
    (before,) = build_all([damaged], store, environ={})
    whole = before.read_bytes()
    (tmp_path / "a.safetensors").write_bytes(b"")
    absent = write_spec(tmp_path, "b.yaml", name="b", labels=LABELS, weights="gone.pth")
    malformed = tmp_path / "c.yaml"
    malformed.write_text("name: c\nname: d\n")
    arguments = [str(path) for path in (damaged, absent, malformed, spec)]
    assert main([*arguments, "--store", str(store)]) == 1
    told = capsys.readouterr().err
    for words in ("a.yaml: weights: ", "b.yaml: weights: no such file", "c.yaml: cannot be read as YAML: name: wanted"):
        assert words in told
    assert (store / "small.mar").is_file() and before.read_bytes() == whole
    assert sorted(path.name for path in store.glob("*.mar")) == ["a.mar", "small.mar"]


def test_a_users_spec_that_cannot_be_read_is_not_replaced_by_the_demonstration(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: small\nweights: {environment: OWN}\ncolour: red\n")
    with pytest.raises(SpecError, match=r"own\.yaml: colour"):
        build_all([spec, tmp_path / "own.yaml"], tmp_path / "store", environ={})
    assert not (tmp_path / "store" / "small.mar").exists()


def test_scores_must_be_finite_and_one_for_each_class(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bias = torch.zeros(10)
    bias[3] = torch.nan
    save_file({"1.weight": torch.zeros(10, 3 * 32 * 32), "1.bias": bias}, tmp_path / "small.safetensors")
    with pytest.raises(SpecError, match=r"small\.yaml: weights: .*wanted finite scores.*in the weights: 1\.bias"):
        build_all([spec], tmp_path / "store", environ={})

    def built(forward: Any) -> str:
        network = torch.nn.Module()
        network.forward = forward
        monkeypatch.setattr(models, "build", lambda *_: network)
        with pytest.raises(SpecError) as caught:
            build_all([spec], tmp_path / "store", environ={})
        return str(caught.value)

    def fails(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("\x1b[31mred")

    named = "small.yaml: head: output: wanted the field that holds the scores, got an output of mean"
    assert named in built(lambda images: {"mean": images.mean((2, 3))})
    shape = "small.yaml: head: wanted scores (1, classes) for 1 images, got (1, 3, 32, 32)"
    assert shape in built(lambda images: images)
    assert "small.yaml: weights: " in built(fails) and r"AssertionError: \x1b[31mred" in built(fails)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: small\nname: other\n", "name: wanted once, it stands in line 1 too"),
        ("name: small\nexplain: {steps: 5, steps: 6}\n", "steps: wanted once"),
        ("labels: &a [*a]\n", "labels"),
        ("? [a, b]\n: 1\n", "cannot be read as YAML"),
        ("name: \x00\n", "cannot be read as YAML"),
    ],
)
def test_yaml_of_which_something_would_be_lost(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"odd\.yaml: ") as caught:
        build_all([tmp_path / "odd.yaml"], tmp_path / "store", environ={})
    assert words in str(caught.value)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for field in ("weights", "labels"):
        with pytest.raises(SpecError, match=rf"small\.yaml: {field}: wanted a file, given a folder: "):
            build_all([write_spec(tmp_path, **{field: "folder"})], tmp_path / "store", environ={})


def test_labels_that_the_weights_tell(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint's own names where it has them, else numbers; an archive with either is built anew."""
    state = load_file(tmp_path / "small.safetensors")
    named = write_spec(tmp_path, labels={"from_weights": True}, weights="m.pth")

    def labels() -> list[str]:
        (archive,) = build_all([named], tmp_path / "store", environ={})
        assert "up to date" not in capsys.readouterr().out
        found: list[str] = json.loads(members(archive)["spec.json"])["labels"]
        return found

    torch.save({"model": state}, tmp_path / "m.pth")
    assert labels() == [str(index) for index in range(10)]
    torch.save({"model": state, "classes": LABELS}, tmp_path / "m.pth")
    assert labels() == LABELS
    build_all([named], tmp_path / "store", environ={})
    assert "up to date" in capsys.readouterr().out


def test_labels_in_another_order_than_the_checkpoints(spec: Path, tmp_path: Path) -> None:
    state = load_file(tmp_path / "small.safetensors")
    torch.save({"model": state, "class_to_idx": {name: index for index, name in enumerate(LABELS)}}, tmp_path / "m.pth")
    build_all([write_spec(tmp_path, labels=LABELS, weights="m.pth")], tmp_path / "store", environ={})
    swapped = [LABELS[1], LABELS[0], *LABELS[2:]]
    with pytest.raises(SpecError, match=r"labels: .*differing: 0 'class 1' \(there 'class 0'\), 1 'class 0'"):
        build_all([write_spec(tmp_path, labels=swapped, weights="m.pth")], tmp_path / "store", environ={})
