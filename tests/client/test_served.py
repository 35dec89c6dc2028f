"""The client and the commands for many photos against the served archives, of which each answer has its type."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagexplain.api.schema import (
    CaptionPrediction,
    ClassPrediction,
    Explanations,
    InstancePrediction,
    MapExplanation,
    PathExplanation,
    RunLengths,
)
from imagexplain.cli import compare_served, explain, predict
from imagexplain.client import (
    AsyncClient,
    Client,
    Explanation,
    ImpossibleError,
    InputError,
    TooLargeError,
    UnauthorizedError,
    UnknownModelError,
)
from tests.conftest import Served
from training.scenes import SceneSettings, scene

GRAPH = {"objects": [{"box": [10, 10, 60, 60], "attributes": 1}]}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return scene(7, 15, SceneSettings(size=(120, 160))).image


@pytest.mark.parametrize(
    ("model", "kind"), [("bit", ClassPrediction), ("tensormask", InstancePrediction), ("captioner", CaptionPrediction)]
)
def test_a_prediction_of_each_kind_is_of_its_type(served: Served, photo: np.ndarray, model: str, kind: type) -> None:
    options: Any = {"graph": GRAPH} if model == "captioner" else {}
    found = served.client.predict(photo, model, **options)
    assert type(found) is kind and found.model == model


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"steps": 8, "segments": "slic", "n_segments": 6}, PathExplanation),
        ({"method": "grad_cam", "smooth": {"samples": 2}}, MapExplanation),
        ({"target_class": ["star", 0], "steps": 4}, Explanations),
        ({"target_class": 3, "contrast_class": "star", "steps": 4, "outputs": ["step_sizes"]}, PathExplanation),
        ({"combine": ("input_x_gradient", "grad_cam"), "normalized": True}, MapExplanation),
        ({"baseline": "tensor", "baseline_tensor": np.zeros((3, 32, 32), np.float32), "steps": 4}, PathExplanation),
        ({"baseline": "image", "baseline_image": np.zeros((9, 9, 3), np.uint8), "steps": 4}, PathExplanation),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_explanation_of_each_kind_is_of_its_type(
    served: Served, photo: np.ndarray, options: dict[str, Any], kind: type
) -> None:
    found = served.client.explain(photo, "bit", **options)
    assert type(found.summary) is kind and all(one.top[0].label for one in found.classes)
    maps = found.tensors["integrated_grads" if "steps" in options else "map"]
    assert maps.dtype == np.float32 and maps.shape[-2:] == (32, 32)
    plain = served.client.explain(photo, "bit", tensors=False, **options)
    assert type(plain.summary) is kind and plain.result.keys() == found.result.keys()


def test_masks_go_out_in_every_form(served: Served, photo: np.ndarray, tmp_path: Path) -> None:
    """A segmenter's instances, booleans, labels, run lengths and files."""
    half = np.zeros(photo.shape[:2], np.uint8)
    half[:, :80] = 1
    found = served.client.predict(photo, "tensormask")
    assert isinstance(found, InstancePrediction) and found.detections
    Image.fromarray(half).save(tmp_path / "masks.png")
    forms: list[Any] = [half.astype(bool), half.astype(bool)[None], half, tmp_path / "masks.png", Image.fromarray(half)]
    areas = []
    for masks in forms:
        explained = served.client.explain(photo, "bit", masks=masks, steps=4).classes[0]
        assert isinstance(explained.groups, list)
        areas.append([group.area for group in explained.groups])
    assert all(each == areas[0] for each in areas) and areas[0][0] > 0
    explained = served.client.explain(photo, "bit", masks=found.detections, steps=4).classes[0]
    assert isinstance(explained.groups, list)
    assert {one.label for one in found.detections} & {group.label.split(" ")[0] for group in explained.groups}


def test_a_photo_without_some_groups_is_predicted(served: Served, photo: np.ndarray) -> None:
    """By the same options the rows are those of the explanation's table, and its masks lie over the photo."""
    found = served.client.explain(photo, "bit", segments="grid", rows=2, columns=2, outputs=["photo_runs"])
    (summary,) = found.classes
    assert isinstance(summary.groups, list) and summary.frame.photo == photo.shape[:2]
    assert isinstance(summary.groups[0].segmentation, RunLengths)
    without = served.client.predict(photo, "bit", segments="grid", rows=2, columns=2, absent=[0, 3])
    assert isinstance(without, ClassPrediction) and without.absent == [0, 3]
    whole = served.client.predict(photo, "bit")
    assert isinstance(whole, ClassPrediction) and without.predictions != whole.predictions


def test_segmenters_and_captioners_explain(served: Served, photo: np.ndarray) -> None:
    of_instance = served.client.explain(photo, "tensormask", detection=0, steps=2)
    assert of_instance.classes[0].detection == 0
    of_words = served.client.explain(photo, "captioner", graph=GRAPH, steps=4, map=False)
    assert of_words.captions[0].words and "attention.0" in of_words.tensors
    assert served.client.picture(photo, "tensormask", endpoint="predictions")[:4] == b"\x89PNG"


def test_an_explanation_adds_up_and_is_the_same_by_both_clients(served: Served, photo: np.ndarray) -> None:
    async def awaited() -> Explanation:
        async with AsyncClient(served.server.inference, headers=served.server.headers()) as client:
            return await client.explain(photo, "bit", steps=30)

    found, other = served.client.explain(photo, "bit", steps=30), asyncio.run(awaited())
    assert isinstance(found.summary, PathExplanation) and other.summary == found.summary
    whole = found.tensors.torch()["integrated_grads"].sum()
    summary = found.summary
    assert summary.score and summary.residual is not None and summary.baseline_score is not None
    assert torch.allclose(whole, torch.tensor(summary.score - summary.baseline_score - summary.residual), atol=1e-4)


def test_refusals_have_their_kinds(served: Served, photo: np.ndarray) -> None:
    with pytest.raises(ImpossibleError, match="zebra"):
        served.client.explain(photo, "bit", target_class="zebra")
    with pytest.raises(UnknownModelError):
        served.client.predict(photo, "none")
    with Client(served.server.inference, "another") as stranger, pytest.raises(UnauthorizedError):
        stranger.predict(photo, "bit")
    with pytest.raises(TooLargeError):
        served.client.predict(bytes(34_000_000), "bit")
    with pytest.raises(InputError, match="uint8"):
        served.client.predict(photo.astype(np.float32), "bit")


def test_the_server_of_a_run_directory_is_found(served: Served, photo: np.ndarray) -> None:
    with Client.local(served.server.run) as client:
        assert set(client.models()) == set(served.server.models)
        assert client.predict(photo, "bit", request_id="mine-2").model == "bit"


def test_a_folder_is_explained_and_predicted(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        (tmp_path / "photos" / str(index)).mkdir(parents=True)
        Image.fromarray(scene(11, index).image).save(tmp_path / "photos" / str(index) / "same.png")
    (tmp_path / "photos" / "0" / "broken.png").write_bytes(b"no photo")
    given = [str(tmp_path / "photos"), "--model", "bit", "--run", served.server.run, "--out", str(tmp_path / "out")]
    asked = ["--segments", "grid", "--option", "rows=2", "--option", "columns=2", "--steps", "8"]
    forms = ["--format", "csv", "--format", "png", "--format", "gzip", "--format", "safetensors"]
    assert explain.main([*given, *asked, *forms]) == 1
    told = capsys.readouterr()
    assert "3 answered, 1 failed" in told.out.replace("1 failed, 3 answered", "3 answered, 1 failed")
    assert "415 image" in told.err
    (failure,) = json.loads((tmp_path / "out" / "explanations_failures.json").read_text())
    assert failure["photo"].endswith("broken.png") and failure["status"] == 415
    with (tmp_path / "out" / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["photo"] for row in rows} == {f"{index}/same.png" for index in range(3)}
    assert len(rows) == 3 * 5 and {row["kind"] for row in rows} == {"segment", "whole"}
    (tmp_path / "photos" / "0" / "broken.png").unlink()
    assert predict.main([*given, "--format", "csv"]) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert {row["rank"] for row in csv.DictReader(file)} >= {"1"}


def test_models_methods_and_classes_stand_side_by_side(
    served: Served, photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the two models one has no attention for the rollout, which its tile says."""
    Image.fromarray(photo).save(tmp_path / "photo.png")
    asked = ["--model", "vit", "--model", "bit", "--method", "attention_rollout", "--method", "gradient"]
    where = ["--run", served.server.run, "--out", str(tmp_path / "sheet.png"), "--columns", "2"]
    assert compare_served.main([str(tmp_path / "photo.png"), *asked, "--target", "star", *where]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] != " "]  # but for those of progress
    assert [line.split()[:2] for line in lines[:4]] == [
        [model, method] for model in ("vit", "bit") for method in ("attention_rollout", "gradient")
    ]
    assert [" evaluations" in line for line in lines[:4]] == [True, True, False, True]
    assert "star" in lines[0] and lines[4].startswith("4 side by side: ")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 600 and sheet.height > 500
