"""The check of a classifier before it is served."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import ViTImageProcessor

from imagexplain.archive.build import build_all
from imagexplain.checkout import ROOT
from imagexplain.cli.check import main, spec_of
from imagexplain.errors import ArgumentError
from imagexplain.models.example_photo import example_photo
from imagexplain.serving import trial
from tests.models.huggingface_folders import write
from tests.pages import blocks


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))
    return report


NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))
"""


def folder_of(path: Path, family: str) -> Any:
    """A folder as save_pretrained writes it, and its network."""
    network = write(path, family)
    side = {"height": 32, "width": 32}
    ViTImageProcessor(size=side).save_pretrained(path)
    return network


def test_a_folder_of_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = folder_of(tmp_path / "folder", "vit")
    report = checked(capsys, str(tmp_path / "folder"))
    assert report["architecture"] == "huggingface/vit"
    assert report["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert report["labels"] == ["cat", "crane (1)", "dog", "crane (3)", "owl"]  # names that repeat have their number
    assert (report["activation"], report["score"]) == ("softmax", "logit")
    assert "attention_rollout" in report["supported"] and "full_grad" in {*report["supported"], *report["refused"]}
    assert not set(report["supported"]) & set(report["refused"])
    assert report["explained"] == report["predictions"][0]["label"]
    residuals = {int(steps): own for steps, own in report["residuals"].items()}
    assert list(residuals) == [4 * 2**index for index in range(len(residuals))]
    assert report["enough_steps"] == next(iter(reversed(residuals)))
    assert residuals[report["enough_steps"]] <= 0.05 and report["explanation_s"] > 0 and report["peak_mib"] > 100


def test_a_spec_that_is_kept_builds_the_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path / "folder", "convnext")
    photo = tmp_path / "photo.png"
    Image.fromarray(example_photo()).resize((90, 70)).save(photo)
    kept = tmp_path / "mine.yaml"
    assert main([str(tmp_path / "folder"), "--photo", str(photo), "--write", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "softmax; explained is the logit" in printed and "not          attention_rollout: model: " in printed
    (archive,) = build_all([kept], tmp_path / "store", environ={})
    assert archive.name == "mine.mar"


BIT = str(ROOT / "archive_specs" / "bit.yaml")


def test_a_spec(capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(capsys, BIT)
    assert report["architecture"] == "bit" and report["supported"]


def test_the_pages_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line, on files of these names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "MAX_SEARCH_SECONDS", 1.0)
    folder_of(tmp_path / "folder", "vit")
    Image.fromarray(example_photo()).save("photo.jpg")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18").state_dict(), "model.safetensors")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "archive_specs" / "configs").mkdir(parents=True)
    usual = "archive_specs/configs/preprocess_imagenet.yaml"
    (tmp_path / usual).write_text((ROOT / usual).read_text())
    made: dict[str, Any] = {}
    exec(NET, made)
    net = made["Net"]().eval()
    torch.save(net.state_dict(), "net.pth")
    shape = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 224, 224),), dynamic_shapes=shape), "net.pt2")
    Path("labels.txt").write_text("cat\ndog\nowl\n")
    (block,) = (each.code for each in blocks(ROOT / "docs" / "checkpoints.md") if "imagexplain check" in each.code)
    usual_fields = Path(usual).read_text()
    for line in block.replace("\\\n", " ").splitlines():
        words = [usual_fields if word == f"$(cat {usual})" else word for word in shlex.split(line)]
        assert words[:2] == ["imagexplain", "check"]
        assert main(words[2:]) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        assert "explained is the logit" in printed and "methods  " in printed
    assert "sigmoid" in Path("archive_specs/mine.yaml").read_text()


@pytest.mark.parametrize(
    ("source", "weights", "options", "message"),
    [
        ("nothing", None, {}, "source: wanted a folder, a program (.pt2, .pt, .onnx), a Python file"),
        ("timm/resnet18", None, {}, "weights: wanted the checkpoint of timm/resnet18: --weights FILE"),
        ("timm/resnet18", "w.pth", {"factory": "Net"}, "factory: goes with a Python file, got timm/resnet18"),
        ("spec.yaml", "w.pth", {}, "weights: stands in the spec itself: spec.yaml"),
        ("spec.yaml", None, {"head": {"temperature": 2}}, "head: stands in the spec itself: spec.yaml"),
    ],
)
def test_sources_that_are_none(source: str, weights: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        spec_of(source, weights, options)
    assert message in str(error.value)


def test_weights_twice(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="weights: are in the source itself"):
        spec_of(str(tmp_path), "w.pth", {})


def test_an_error_is_the_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(2)}, file)
    assert main(["timm/resnet18", "--weights", str(file)]) == 1
    assert "weights: " in capsys.readouterr().err


def test_a_photo_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"none")
    assert main([BIT, "--photo", str(tmp_path / "photo.jpg")]) == 1
    assert "image: " in capsys.readouterr().err
