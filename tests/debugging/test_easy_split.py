from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debugging.annotation import RATING
from debugging.easy_split import difficulty_of, easy
from imagexplain import cli
from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError

pytest.importorskip("h5py")

REFERENCE = json.loads((ROOT / "tests/fixtures/ega/difficulty.json").read_text())
VALUES = {image: own["difficulty"] for image, own in REFERENCE.items()}


def task(number: int, filename: str, rating: float) -> dict[str, Any]:
    annotations = {RATING: str(rating)}
    response = {"annotations": annotations}
    return {"task_id": str(number), "status": "completed", "metadata": {"filename": filename}, "response": response}


def test_images_of_a_split_from_a_threshold_on() -> None:
    images = [f"val2014/COCO_val2014_{int(image):012}" for image in sorted(REFERENCE)]
    rated = difficulty_of(images, VALUES)
    assert len(rated) == 30 and rated["val2014/COCO_val2014_000000534428"] == pytest.approx(0.22)
    assert len(easy(images, rated, 0.5)) == 17 and len(easy(images, rated, 0)) == 30
    assert easy(images, rated, 0.98) == ["val2014/COCO_val2014_000000234572"]
    assert easy([*images, "x"], rated, 1, keep_unrated=True) == ["x"]
    with pytest.raises(ArgumentError, match="wanted 0 … 1, got 5"):
        easy(images, rated, 5)


def test_images_by_name() -> None:
    assert difficulty_of(["a/scene_1", "b/scene_2"], {"a/scene_1.png": 0.5, "scene_2": 0.25, "scene_3": 1.0}) == {
        "a/scene_1": 0.5,
        "b/scene_2": 0.25,
    }


def test_the_command_writes_the_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(ROOT / "tests/fixtures/ega/small", data, copy_function=shutil.copyfile)
    names = [f"p1_COCO_train2014_{number:012}__caption_{word}_attr_result.jpg" for number in (1, 2) for word in (1, 2)]
    tasks = [
        task(number, name, rating) for number, (name, rating) in enumerate(zip(names, (1, 2, 4, 3.5), strict=True))
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    arguments = ["debug", "split", str(tmp_path / "tasks.json"), str(data), "--split", "val_sub", "--threshold", "0.75"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "2 images: 1 below 0.75 left out, 0 without a rating left out" in said.out + said.err
    assert "val_sub_opt: 1 image, 5 captions" in said.out + said.err
    assert np.load(data / "features/MP/resnet101.ctrl/val_sub_opt_ft.npy").shape == (1, 24)
    assert (data / "annotation/cleaned_val_sub_opt_region_descriptions.json").is_file()
