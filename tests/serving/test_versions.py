"""Versions of one model: built from their checkpoints, served at once by TorchServe, and compared on one photo."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
import requests
import timm
import torch
import yaml

from imagexplain.archive.build import build_all
from imagexplain.archive.find import find_classifier
from imagexplain.archive.spec import SpecError
from imagexplain.checkout import ROOT
from imagexplain.cli import compare_methods, explain, serve
from imagexplain.client import Client
from imagexplain.ops.server import ServerError, UnknownModelError, chosen_archives, free_port, start
from tests.conftest import metrics
from tests.serving import archives
from tests.waiting import until

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CLASSES = ("attic", "hall", "kitchen")


def places(folder: Path, version: str, weights: Path) -> Path:
    """The repository's spec of a user's ViT, as a copy for one version, with a network that is tiny."""
    spec = yaml.safe_load((ROOT / "archive_specs" / "places_full.yaml").read_text())
    spec |= {
        "version": version,
        "weights": str(weights),
        "architecture": "timm/vit_tiny_patch16_224",
        "arguments": TINY,
    }
    spec["preprocess"]["size"] = [32, 32]
    path = folder / f"places_{version}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def trained(file: Path, pooling: str, seed: int, head: bool = True) -> Path:
    """The checkpoint of a training script, of a network with random weights."""
    torch.manual_seed(seed)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=len(CLASSES), global_pool=pooling, **TINY)
    state = {name: tensor for name, tensor in network.state_dict().items() if head or not name.startswith("head.")}
    torch.save({"model": state, "epoch": 99, "args": Namespace(data_path="./data/")}, file)
    return file


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two versions, by class token without labels and by average with a file of them."""
    first = places(tmp_path, "1.0", trained(tmp_path / "1.pth", "token", 1))
    second = places(tmp_path, "2.0", trained(tmp_path / "2.pth", "avg", 2))
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES))
    built = build_all([first], tmp_path / "store", environ={})
    built += build_all([second], tmp_path / "store", environ={"PLACES_LABELS": str(tmp_path / "labels.txt")})
    assert [path.name for path in built] == ["places.mar", "places@2.0.mar"]
    return tmp_path / "store"


def test_two_versions_are_served_at_once(
    store: Path, run: Path, scene_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(store=store, run=run, port=free_port())
    assert server.models == ("places/2.0", "places/1.0")
    assert serve.main(["status", "--run", str(run)]) == 0
    assert "places/1.0: READY" in capsys.readouterr().out
    client, photo = Client(server.inference, headers=server.headers()), scene_file

    def outputs(model: str) -> tuple[str, list[str], list[float]]:
        found = client.photo(f"predictions/{model}", photo, accept="application/json").json()
        ranked = sorted(found["predictions"], key=lambda row: row["index"])
        return found["model"], [row["label"] for row in ranked], [row["probability"] for row in ranked]

    first, second = outputs("places/1.0"), outputs("places/2.0")
    assert first[:2] == ("places", ["0", "1", "2"]) and second[:2] == ("places/2.0", list(CLASSES))
    assert max(abs(one - two) for one, two in zip(first[2], second[2], strict=True)) > 0.01
    assert outputs("places") == second, "a request that names no version is the newest's"
    absent = requests.get(f"{server.inference}/predictions/places/3.0", headers=server.headers(), timeout=10)
    assert absent.status_code == 404

    models = ["--model", "places/1.0", "--model", "places/2.0", "--target", "1"]
    form = ["--accept", "image/png", "--out", str(tmp_path / "out")]
    assert explain.main([str(photo), *models, *form, "--run", str(run)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^places/1\.0: .*^places/2\.0: ", told, re.MULTILINE | re.DOTALL)
    pictures = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in pictures] == ["scene_places@1.0.png", "scene_places@2.0.png"]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    counted = (
        r'^explain_requests_total{model_name="places",kind="explanation",outcome="ok",model_version="(.*?)".*} (.*)$'
    )
    until(lambda: sorted(re.findall(counted, metrics(server), re.MULTILINE)) == [("1.0", "1.0"), ("2.0", "1.0")])


def test_methods_are_compared_on_a_version(
    store: Path, scene_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_methods, "SPECS", tmp_path)
    newest = find_classifier("places", compare_methods.SPECS)
    assert newest.model.address == "places/2.0" == find_classifier("places/2.0", compare_methods.SPECS).model.address
    question = compare_methods.ask(scene_file, find_classifier("places/1.0", compare_methods.SPECS), target="2")
    assert (question.spec.version, question.spec.labels, question.target) == ("1.0", ("0", "1", "2"), 2)
    with pytest.raises(ValueError, match=r"unknown classifier 'places/3\.0'"):
        find_classifier("places/3.0", compare_methods.SPECS)


def test_versions_are_drained_and_stopped(tmp_path: Path, run: Path) -> None:
    """Of three archives, two of one name; a third one of the same version is refused."""
    for version in ("1.9", "1.10"):
        archives.write(tmp_path / "store", "small", archives.WORKING.replace("fine", version), version=version)
    archives.write(tmp_path / "store", "other")
    port = free_port()
    server = start(store=tmp_path / "store", run=run, port=port)
    assert server.models == ("other", "small/1.10", "small/1.9")

    def answer(model: str) -> str:
        return (
            Client(server.inference, headers=server.headers())
            .post(f"predictions/{model}", b"x", "image/png")
            .body.decode()
        )

    assert [answer(model) for model in ("small/1.9", "small/1.10", "small")] == ["1.9", "1.10", "1.10"]
    (tmp_path / "store" / "small@1.9.mar").rename(tmp_path / "store" / "small.mar")
    archives.write(tmp_path / "store", "small", version="1.9")
    with pytest.raises(ServerError, match=r"are both archives of small, version 1\.9: wanted one"):
        start(store=tmp_path / "store", run=run, port=port)
    (tmp_path / "store" / "small@1.9.mar").unlink()
    some = start(store=tmp_path / "store", run=run, port=port, models=["small/1.9"])
    assert some.models == ("small",) and answer("small") == "1.9" and server.process() is None
    assert start(store=tmp_path / "store", run=run, port=port, models=["small/1.9"]) == some
    assert serve.main(["stop", "--run", str(run)]) == 0 and some.process() is None


def test_some_models_of_a_store_are_served(tmp_path: Path) -> None:
    """An archive that is damaged is in nobody's way but where it is asked for."""
    store = tmp_path / "store"
    for name, version in (("small", "1.0"), ("small", "2.0"), ("other", "1.0")):
        archives.write(store, name, version=version)
    (store / "torn.mar").write_bytes(b"PK")

    def chosen(*models: str) -> list[str]:
        return [path.name for path in chosen_archives(store, models)]

    assert chosen() == ["other.mar", "small.mar", "small@2.0.mar", "torn.mar"]
    assert chosen("small") == ["small.mar", "small@2.0.mar"]
    assert chosen("small/2.0", "other") == ["other.mar", "small@2.0.mar"]
    assert chosen("torn") == ["torn.mar"]
    with pytest.raises(UnknownModelError, match=r"MODELS: unknown model 'smal' \(did you mean 'small'\?\); known: "):
        chosen("other", "smal")
    with pytest.raises(UnknownModelError, match=r"unknown model 'small/3\.0'"):
        chosen("small/3.0")


def test_a_pretrained_network_is_refused_with_what_to_do(tmp_path: Path) -> None:
    spec = places(tmp_path, "1.0", trained(tmp_path / "mae_pretrain_vit_base.pth", "token", 1, head=False))
    with pytest.raises(
        SpecError, match=r"places_1\.0\.yaml: weights: .*mae_pretrain_vit_base\.pth: .*`imagexplain fine"
    ):
        build_all([spec], tmp_path / "store", environ={})
