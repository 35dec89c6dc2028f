"""The page on serving one's own model: its builds and checks, on checkpoints of these names."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from imagexplain.archive.build import build_all
from imagexplain.archive.spec import load
from imagexplain.checkout import ROOT
from imagexplain.cli import check
from imagexplain.models.example_photo import example_photo
from imagexplain.ops.store import stored
from tests.pages import blocks

PAGE = ROOT / "docs" / "your_own_model.md"
SPECS = ROOT / "archive_specs"
REAL_WEIGHTS = {
    "TENSORMASK_WEIGHTS=model_final.pkl": "detectron2's R50-FPN; tests/models/test_tensormask.py reads such files",
    "SWIN_WEIGHTS=cascade_mask_rcnn_swin_tiny.pth": "mmdet's Swin-T; tests/models/test_swin_keys.py maps its names",
}
"""Builds that want a published checkpoint, each with what is tested in its place."""

LINES = [
    line for block in blocks(PAGE) if block.language == "sh" for line in block.code.replace("\\\n", " ").splitlines()
]
BUILDS = [line for line in LINES if line.startswith("make archives")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's files: the demonstration's networks, and one of timm, as their trainers save them."""
    monkeypatch.chdir(tmp_path)
    weights = SPECS / "weights"
    torch.save({"epoch": 600, "model_state_dict": load_file(weights / "lanet_scenes.safetensors")}, "lanet.pth")
    torch.save(load_file(weights / "bit_scenes.safetensors"), "bit.pth")
    torch.save({"state_dict": load_file(weights / "swin_scenes.safetensors")}, "mask_rcnn.pth")
    (tmp_path / "mask_rcnn.py").write_bytes((SPECS / "configs" / "swin_scenes.py").read_bytes())
    (tmp_path / "labels.txt").write_bytes((SPECS / "labels" / "scenes.txt").read_bytes())
    torch.manual_seed(0)
    torch.save(timm.create_model("mobilenetv3_small_100", num_classes=10).state_dict(), "mine.pth")
    Image.fromarray(example_photo()).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize("line", BUILDS)
def test_a_build_is_served_by_its_own_spec(line: str, folder: Path) -> None:
    """It has answered a photo as it was built."""
    given = dict(word.split("=") for word in shlex.split(line)[2:])
    wanted = [path for path in SPECS.glob("*.yaml") if {own.environment for own in load(path).sources} & given.keys()]
    (spec,) = wanted
    assert given.keys() <= {own.environment for own in load(spec).sources}
    if any(real in line for real in REAL_WEIGHTS):
        return
    build_all([spec], folder / "store", environ=given)
    (model,) = stored(folder / "store")
    assert len(model.spec.labels) == 10 and "integrated_gradients" in (model.methods or ())


def test_the_check_of_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = (line for line in LINES if line.startswith("imagexplain check"))
    assert check.main(shlex.split(line)[2:]) == 0
    printed = [row.split()[0] for row in capsys.readouterr().out.splitlines() if row.strip()]
    assert {"input", "prediction", "residual", "not"} <= set(printed), "the lines that the page tells to look at"


def test_what_is_served_is_what_was_built() -> None:
    """By the names of the specs."""
    names = {load(path).name for path in SPECS.glob("*.yaml")}
    asked = [word.partition("=")[2].split() for line in LINES for word in shlex.split(line) if "MODELS=" in word]
    assert asked and {name for names in asked for name in names} <= names
    assert all(any(real in line for line in BUILDS) for real in REAL_WEIGHTS)
    assert all((ROOT / reason.split("; ")[1].split()[0]).is_file() for reason in REAL_WEIGHTS.values())
    assert os.environ.get("TIMM_WEIGHTS") is None
