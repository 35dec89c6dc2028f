"""The command, from a folder of photos to an archive."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from imagexplain import cli, models
from imagexplain.archive.build import build_all
from imagexplain.archive.spec import ClassifierSpec, select
from imagexplain.models.checkpoints import checkpoint
from imagexplain.vision.preprocess_settings import Preprocess
from tests.training.finetuning.folders import CLASSES, labelled_folder, photos
from tests.training.finetuning.networks import TINY, tiny_vit
from training.finetuning import command, trainer
from training.finetuning.config import FinetuneConfig
from training.finetuning.image_folder import ImageFolder, list_folder
from training.finetuning.interruption import STOPPED
from training.finetuning.pipeline import Pipeline
from training.finetuning.validation import validate

SMALL = [
    *("--model", "timm/vit_tiny_patch16_224", "--arguments", json.dumps(TINY), "--workers", "0"),
    *("--epochs", "3", "--warmup-epochs", "1", "--batch", "4", "--accumulation", "2", "--rate", "0.01"),
]
RESNET = ["--model", "resnet18", "--arguments", '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}']
PLAIN = [*SMALL, "--no-augmentation", "--mixup", "0", "--cutmix", "0", "--drop-path", "0"]


def finetuned(folder: Path, out: Path, *arguments: str) -> int:
    return cli.main(["finetune", str(folder), "--out", str(out), *arguments])


def epochs(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "epochs.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_from_pretraining_to_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The archive's model is the network of the best epoch, and its preprocessing that of the validation."""
    state = tiny_vit(seed=3).state_dict()
    torch.save({"model": {name: each for name, each in state.items() if "head" not in name}}, tmp_path / "mae.pth")
    folder, out = photos(tmp_path / "photos"), tmp_path / "run"
    assert finetuned(folder, out, *SMALL, "--weights", str(tmp_path / "mae.pth")) == 0
    told = capsys.readouterr().out
    assert "24 photos to train on, 9 to validate on, 3 classes\n" in told
    assert f"begins with {tmp_path}/mae.pth; new: head.weight, head.bias\n" in told
    best = max(epochs(out), key=lambda line: line["accuracy"])
    assert f"best: epoch {best['epoch']}, accuracy {best['accuracy']:.2%} on val: {out}/best.pth\n" in told
    assert all(f"  {name:6}  {share:7.2%}\n" in told for name, share in best["per_class"].items())
    (archive,) = select([out / "archive.yaml"], {})
    spec = archive.model
    assert isinstance(spec, ClassifierSpec) and spec.labels == CLASSES and spec.name == "run"
    network = models.build(spec.architecture, checkpoint.read(archive.weights), spec.arguments)
    served = Preprocess(**spec.preprocess.model_dump())
    found = validate(network, ImageFolder(list_folder(folder / "val"), Pipeline(served)), batch=4)
    assert found.accuracy == best["accuracy"] and found.loss == pytest.approx(best["val_loss"], rel=1e-5)
    (built,) = build_all([out / "archive.yaml"], tmp_path / "store")
    assert built.name == "run.mar"


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_the_same_command_again_goes_on(
    told: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that was told to end within an epoch, augmentation, mixing and drop path included."""
    folder, handler = photos(tmp_path / "photos"), signal.getsignal(told)
    assert finetuned(folder, tmp_path / "whole", *SMALL) == 0
    update = trainer._Training.update

    def interrupted(training: Any, window: Any) -> None:
        update(training, window)
        if training.progress.step == 4:
            os.kill(os.getpid(), told)

    with monkeypatch.context() as patched:
        patched.setattr(trainer._Training, "update", interrupted)
        assert finetuned(folder, tmp_path / "part", *SMALL) == STOPPED
    assert "interrupted; " in capsys.readouterr().out
    assert len(epochs(tmp_path / "part")) == 1
    assert signal.getsignal(told) == handler
    assert finetuned(folder, tmp_path / "part", *SMALL) == 0
    assert epochs(tmp_path / "part") == epochs(tmp_path / "whole")
    whole, part = (checkpoint.read(tmp_path / name / "last.pth") for name in ("whole", "part"))
    assert all(torch.equal(part[name], tensor) for name, tensor in whole.items())


def test_photos_that_cannot_be_read_stop_it_or_are_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "run"
    bad = [folder / "train" / "light" / "bad.jpg", folder / "val" / "dark" / "bad.png"]
    for file in bad:
        file.write_bytes(b"")
    assert finetuned(folder, out, *PLAIN) == 1
    error = capsys.readouterr().err
    assert all(f"\n{file}: wanted an encoded image" in error for file in bad)
    assert finetuned(folder, out, *PLAIN, "--skip-faulty") == 0
    told = capsys.readouterr().out
    assert all(f"left out: {file}: wanted an encoded image" in told for file in bad)
    assert "2 of 35 photos left out\n" in told and "24 photos to train on, 9 to validate on" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "absent.pth"], "absent.pth"),
        (["--model", "vit_tiny_patch17"], "architecture: wanted timm/ and the name"),
        (["--batch", "3", "--mixup", "0.5"], "batch: wanted an even number"),
        (["--accumulation", "30"], "batch: wanted at most the 24 training images for one update, got 120"),
        (["--warmup-epochs", "5"], "warmup_epochs: wanted fewer than the 3 epochs, got 5"),
        (["--size", "48"], "size: wanted the img_size of the arguments, 32, got 48"),
        (["--arguments", "[1]"], "arguments: wanted a JSON object, got [1]"),
    ],
)
def test_what_is_wrong_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetuned(photos(tmp_path / "photos"), tmp_path / "run", *PLAIN, *arguments) == 1
    assert message in capsys.readouterr().err


def test_the_spec_has_the_recipes_preprocessing_or_timms(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    one = [*PLAIN, "--epochs", "1", "--warmup-epochs", "0"]
    runs = {"recipe": [], "timm": ["--preprocess", "timm", "--pooling", "avg"], "a resnet": [*RESNET, "--size", "40"]}
    specs = {}
    for name, arguments in runs.items():
        assert finetuned(folder, tmp_path / name, *one, *arguments) == 0
        specs[name] = yaml.safe_load((tmp_path / name / "archive.yaml").read_text("utf-8"))
    mean = specs["recipe"]["preprocess"].pop("mean")
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert specs["recipe"]["preprocess"] == {
        "size": [32, 32],
        "std": [0.229, 0.224, 0.225],
        "fit": "crop",
        "crop_fraction": 0.875,
        "interpolation": "bicubic",
    }
    assert specs["timm"]["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert specs["timm"]["arguments"] == {"global_pool": "avg", **TINY}
    assert specs["a resnet"]["preprocess"]["size"] == [40, 40] and specs["a resnet"]["name"] == "aresnet"
    assert "img_size" not in specs["a resnet"]["arguments"]


def test_more_photos_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, more = photos(tmp_path / "photos"), labelled_folder(tmp_path / "more", (1, 2, 3))
    assert finetuned(folder, tmp_path / "run", *PLAIN, "--more", str(more), "--more", str(more)) == 0
    assert "36 photos to train on, 9 to validate on" in capsys.readouterr().out
    assert finetuned(folder, tmp_path / "other", *PLAIN, "--more", str(folder / "val")) == 1
    error = capsys.readouterr().err
    assert f"val: wanted other photos than those to train on, got 9, such as {folder / 'val/dark/0.png'}" in error


def test_a_refused_run_leaves_the_spec_of_the_one_before(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "_rün"
    assert finetuned(folder, out, *PLAIN) == 0
    before = (out / "archive.yaml").read_text()
    assert finetuned(folder, out, *PLAIN, "--preprocess", "timm") == 1
    assert (out / "archive.yaml").read_text() == before and yaml.safe_load(before)["name"] == "rn"


def test_every_setting_has_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    """The command's defaults are those of the recipe."""
    given = command.parser().parse_args(["photos", "--out", "run"])
    assert command._config(given) == FinetuneConfig()
    with pytest.raises(SystemExit):
        cli.main(["finetune", "--help"])
    assert re.search(r"--layer-decay\s+LAYER_DECAY\s+\(default: 0\.65\)", capsys.readouterr().out)
