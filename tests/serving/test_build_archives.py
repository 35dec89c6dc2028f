from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from handlers import models
from handlers.spec import SpecError, select
from scripts.build_archives import build_all, main, model_config
from scripts.server import ROOT
from tests.serving.archives import write_spec

TENSORMASK = ROOT / "archive_specs" / "weights" / "tensormask_scenes.safetensors"
LABELS = [f"class {index}" for index in range(10)]


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
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "handlers").rglob("*.py")}
    assert set(files) == package | {"MAR-INF/MANIFEST.json", "model-config.yaml", "model.safetensors", "spec.json"}
    manifest: dict[str, Any] = json.loads(files["MAR-INF/MANIFEST.json"])
    assert manifest["model"]["handler"] == "handlers.classifier"
    assert manifest["model"]["modelName"] == "small"
    assert json.loads(files["spec.json"])["labels"] == LABELS
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


def test_labels_must_match_the_weights(spec: Path, tmp_path: Path) -> None:
    write_spec(tmp_path, labels=["cat", "dog"])
    with pytest.raises(SpecError, match=r"small\.yaml: labels: the weights have 10 classes, given are 2 labels"):
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
