from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from debugging.examiner import InProcess
from debugging.finding import COLUMNS, Finder
from debugging.images import labelled_folder, read_photo
from debugging.model import DebuggedModel, open_model
from debugging.results import Record
from debugging.segment_table import entropy, responsible
from debugging.segmentation import LabelMaps, Superpixels
from evaluation.evaluated_model import EvaluatedModel
from imagexplain import cli
from imagexplain.archive.spec import WEIGHTS_FILE, ClassifierSpec
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.superpixels import SlicSettings
from tests.debugging.scene_folder import write_png, write_scenes
from tests.serving.archives import archived
from tests.serving.handlers import write_timm

SPECS = ROOT / "archive_specs"


def errors_of(results: Path) -> Any:
    return json.loads((results / "errors.json").read_text())


def test_the_files_of_the_step(found: Path, scenes: Path) -> None:
    content = errors_of(found)
    errors = content["errors"]
    assert content["images"] == 12
    assert len(errors) >= 6  # every second scene lies in a wrong folder
    assert sum(count["errors"] for count in content["classes"].values()) == len(errors)
    model = open_model("vit", SPECS)
    with (found / "segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    for entry in errors:
        seen = model.see(read_photo(scenes / "val" / entry["image"]))
        scores, feature = model.evaluate(seen.image[None])
        assert entry["named"] == model.labels[int(scores.argmax())] != entry["truth"]
        assert entry["confidence"] == pytest.approx(scores.softmax(1).max().item(), rel=1e-4)
        assert entry["entropy"] == pytest.approx(entropy(scores).item(), rel=1e-3, abs=1e-6)
        torch.testing.assert_close(torch.tensor(entry["feature"]), feature[0], rtol=1e-4, atol=1e-5)
        own = [row for row in rows if row["image"] == entry["image"]]
        assert sum(float(row["area_share"]) for row in own) == pytest.approx(1)
        assert sum(float(row["wrong_positive_share"]) for row in own) == pytest.approx(1, abs=1e-5)
        ranks = sorted(int(row["rank"]) for row in own if row["rank"] != "0")
        assert ranks == list(range(1, len(ranks) + 1))
        for segment in entry["segments"]:
            if segment["rank"]:
                assert len(segment["feature"]) == 128
                assert Image.open(found / segment["crop"]).format == "PNG"
                assert Image.open(found / segment["overview"]).size == (256, 256)


def test_a_class_has_the_mean_feature_of_its_errors(found: Path) -> None:
    content = errors_of(found)
    name = next(name for name, count in content["classes"].items() if count["errors"])
    features = torch.tensor([entry["feature"] for entry in content["errors"] if entry["truth"] == name])
    torch.testing.assert_close(torch.tensor(content["classes"][name]["error_mean"]), features.mean(0))


def test_an_interrupted_run_goes_on_and_gives_the_same_files(
    found: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["debug", "find", str(scenes / "val"), str(tmp_path / "r"), "--model", "vit", "--steps", "5"]
    examined: list[str] = []
    whole = Finder.examine

    def until_five(self: Finder, name: str) -> dict[str, Any]:
        if len(examined) == 5:
            raise KeyboardInterrupt
        examined.append(name)
        return whole(self, name)

    monkeypatch.setattr(Finder, "examine", until_five)
    assert cli.main(command) == 130
    assert "run it again to go on" in capsys.readouterr().err
    assert not (tmp_path / "r" / "errors.json").exists()

    def the_others(self: Finder, name: str) -> dict[str, Any]:
        assert name not in examined
        return whole(self, name)

    monkeypatch.setattr(Finder, "examine", the_others)
    assert cli.main(command) == 0
    for name in ("errors.json", "segments.csv"):
        assert (tmp_path / "r" / name).read_bytes() == (found / name).read_bytes()
    assert cli.main([*command[:-1], "6"]) == 1
    assert "steps 5 there, 6 now" in capsys.readouterr().err


def test_files_that_are_no_photos_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "val", 2)
    (tmp_path / "val" / "star").mkdir(exist_ok=True)
    (tmp_path / "val" / "star" / "empty.png").touch()
    assert (
        cli.main(["debug", "find", str(tmp_path / "val"), str(tmp_path / "r"), "--model", "vit", "--steps", "2"]) == 0
    )
    said = capsys.readouterr().out
    assert "2 images," in said and "1 skipped" in said and "skipped star/empty.png: wanted an encoded image" in said
    assert [one["image"] for one in errors_of(tmp_path / "r")["skipped"]] == ["star/empty.png"]


def test_a_folder_that_is_no_class_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "val" / "zebra" / "1.png", torch.zeros(8, 8, 3, dtype=torch.uint8).numpy())
    assert cli.main(["debug", "find", str(tmp_path / "val"), str(tmp_path / "r"), "--model", "vit"]) == 1
    assert "names of the model's classes" in capsys.readouterr().err


def test_named_segments_and_the_rest(scenes: Path, tmp_path: Path) -> None:
    command = ["debug", "find", str(scenes / "val"), str(tmp_path), "--model", "vit", "--steps", "10"]
    assert cli.main([*command, "--masks", str(scenes / "masks")]) == 0
    for entry in errors_of(tmp_path)["errors"]:
        assert {segment["label"] for segment in entry["segments"]} <= {"shape", "distractor", "rest"}
        # The model is right about these scenes, the folder is not: its shape drove the answer.
        assert next(segment["label"] for segment in entry["segments"] if segment["rank"] == 1) == "shape"


class BackgroundDecides(nn.Module):
    """Scores of red and blue by the image's mean colour, and a little by that of its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 2, bias=False)
        self.head.weight.data = torch.tensor([[8.0, 0, -8, 0.1, 0, 0], [-8, 0, 8, 0, 0, 0.1]])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.cat([images.mean((2, 3)), images[:, :, 3:5, 3:5].mean((2, 3))], 1))


def test_the_background_is_named_where_it_decides(tmp_path: Path) -> None:
    """Blue middles on red: wrong for who trusts the background. 60 of 64 pixels carry it, and are named for it."""
    pixels = torch.zeros(8, 8, 3, dtype=torch.uint8)
    pixels[..., 0] = 255
    pixels[3:5, 3:5] = torch.tensor([0, 0, 255], dtype=torch.uint8)
    write_png(tmp_path / "val" / "blue" / "1.png", pixels.numpy())
    middle = torch.zeros(8, 8, dtype=torch.uint8)
    middle[3:5, 3:5] = 1
    write_png(tmp_path / "masks" / "blue" / "1.png", middle.numpy())
    settings = Preprocess((8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    network = EvaluatedModel("background", BackgroundDecides(), settings, quadrature("midpoint", 4), "zero")
    model = DebuggedModel(network, ("red", "blue"), "zero")
    photo = read_photo(tmp_path / "val" / "blue" / "1.png")
    table = InProcess(model, LabelMaps(tmp_path / "masks")).table("blue/1.png", photo, model.see(photo), (0, 1))
    assert [table.labels[index] for index in responsible(table)] == ["rest"]


def test_a_model_from_its_archive(tmp_path: Path) -> None:
    archived(tmp_path, write_timm(tmp_path, "resnet"), "resnet")
    model = open_model(str(tmp_path / "resnet.mar"), SPECS, steps=3)
    assert model.labels == ("cat", "dog", "fox", "owl")
    assert len(model.served.rule) == 3
    assert model.evaluate(torch.rand(1, 3, 32, 32))[1].shape == (1, 16)
    with pytest.raises(ArgumentError, match="wanted the archive of a classifier"):
        open_model(str(tmp_path / "absent.mar"), SPECS)
    with pytest.raises(ArgumentError, match="baseline: wanted one of zero"):
        open_model("vit", SPECS, "uniform")


def test_labels_that_the_weights_tell(tmp_path: Path) -> None:
    """A spec that leaves its labels to the weights has as many as the head, here without names."""
    folder = write_timm(tmp_path, "resnet")
    spec = ClassifierSpec.read(folder)
    written = {
        "name": "mine",
        "handler": "classifier",
        "architecture": spec.architecture,
        "arguments": dict(spec.arguments),
        "weights": str(folder / WEIGHTS_FILE),
        "labels": {"from_weights": True},
        "preprocess": spec.preprocess.model_dump(mode="json"),
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(written))
    assert open_model(str(tmp_path / "mine.yaml"), SPECS).labels == ("0", "1", "2", "3")


@pytest.mark.parametrize("baseline", ["zero", "black", "white", "mean", "blur"])
def test_every_baseline_has_the_inputs_shape(baseline: str) -> None:
    model = open_model("vit", SPECS, baseline)
    assert model.start(torch.rand(3, 64, 64)).shape == (3, 64, 64)


def test_no_server_is_told(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["debug", "find", str(scenes / "val"), str(tmp_path), "--model", "vit", "--served"]
    assert cli.main([*command, "--run", str(tmp_path / "absent")]) == 1
    assert "no server runs with" in capsys.readouterr().err


def test_an_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["debug", "fnid"])
    assert ended.value.code == 2
    assert "invalid choice: 'fnid'" in capsys.readouterr().err


def test_another_model_on_the_server_is_told(scenes: Path, tmp_path: Path) -> None:
    model = open_model("vit", SPECS, steps=2)
    segmentation = Superpixels(SlicSettings(4))

    class Other(InProcess):
        def scores(self, photo: Any, seen: Any) -> Tensor:
            return super().scores(photo, seen) + torch.eye(len(model.labels))[0] * 50

    finder = Finder(model, Other(model, segmentation), labelled_folder(scenes / "val"), tmp_path)
    with pytest.raises(ArgumentError, match="wanted the model of the archive here"):
        finder.run(Record(tmp_path / "images.jsonl"))
