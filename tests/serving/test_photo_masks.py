"""Explanations whose groups can be laid over the photo, and the frame that tells where the model looked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from pycocotools import mask as coco

from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.api import schema
from imagexplain.limits import Limits
from imagexplain.serving import remote_segments
from imagexplain.vision.masks import parse_masks
from tests.serving.asking import HEIGHT, WIDTH, answer_to, ask, coarse_png, detected, explain_one, explanation
from tests.serving.asking import noise_png as photo
from tests.tensors import unpacked
from tests.wire.photos import encoded, noise_photo

JSON, GZIP, SAFETENSORS = "application/json", "application/gzip", "application/x-safetensors"
WITH_SUMMARY = f"{SAFETENSORS}; summary=true"
SLIC = "steps=2&segments=slic&n_segments=6&outputs=photo_masks"
RUNS = [{"size": [HEIGHT, WIDTH], "counts": [300, 500, 1120], "label": "own"}]


def decoded(row: dict[str, Any]) -> np.ndarray:
    """The mask of a row, as pycocotools reads it."""
    runs = row["segmentation"]
    return coco.decode({**runs, "counts": runs["counts"].encode()}).astype(bool)


def read(body: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and summary of an answer as safetensors."""
    length = int.from_bytes(body[:8], "little")
    return safetensors.torch.load(body), json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["result"])


@pytest.mark.parametrize("method", ["", "&method=input_x_gradient", "&method=kernel_shap&samples=40"])
def test_rows_have_masks_and_tensors_a_map(resnet: ClassifierHandler, method: str) -> None:
    options = SLIC.replace("steps=2&", "") + method if method else SLIC
    _, answer = explain_one(resnet, options)
    typed = msgspec.convert(answer, schema.MapExplanation if method else schema.PathExplanation)
    assert typed.frame == schema.Frame(photo=(HEIGHT, WIDTH), input=(32, 32), box=(0.0, 0.0, WIDTH, HEIGHT))
    rows = answer["groups"]
    assert ["segmentation" in row for row in rows] == [row["kind"] != "whole" for row in rows]
    tensors, summary = read(explain_one(resnet, options, WITH_SUMMARY)[1])
    assert summary["groups"] == rows and summary["frame"] == answer["frame"]
    labels = tensors["photo_label_map"]
    assert labels.dtype == torch.int32 and labels.shape == (HEIGHT, WIDTH)
    for number, row in enumerate(rows[:-1]):
        assert np.array_equal(decoded(row), (labels == number).numpy())
    plain = unpacked(ask(resnet, (explanation(options, GZIP), photo()))[0][0])
    assert torch.equal(plain["photo_label_map"], labels) and plain["frame"] == answer["frame"]
    assert "groups" not in plain and "photo_label_map" not in answer


def test_nothing_is_drawn_where_nobody_asks(resnet: ClassifierHandler) -> None:
    options = SLIC.replace("&outputs=photo_masks", "")
    tensors, summary = read(explain_one(resnet, options, WITH_SUMMARY)[1])
    assert "photo_label_map" not in tensors and "frame" in summary
    assert all("segmentation" not in row for row in summary["groups"])
    assert "frame" in explain_one(resnet, "steps=2")[1]


def test_runs_can_be_had_without_the_map(resnet: ClassifierHandler) -> None:
    _, wanted = read(explain_one(resnet, SLIC, WITH_SUMMARY)[1])
    tensors, summary = read(explain_one(resnet, SLIC.replace("photo_masks", "photo_runs"), WITH_SUMMARY)[1])
    assert summary["groups"] == wanted["groups"] and "photo_label_map" not in tensors


def test_sent_masks_are_themselves(resnet: ClassifierHandler) -> None:
    options = f"steps=2&outputs=photo_masks&masks={json.dumps(RUNS)}"
    tensors, summary = read(explain_one(resnet, options, WITH_SUMMARY)[1])
    (own,) = (shape.rectangles().cut_out() for shape in parse_masks(RUNS, (HEIGHT, WIDTH), Limits()).shapes)
    wanted = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    wanted[own.window] = own.mask
    row, rest, _ = summary["groups"]
    assert np.array_equal(decoded(row), wanted) and np.array_equal(decoded(rest), ~wanted)
    assert np.array_equal(tensors["photo_label_map"].numpy(), np.where(wanted, 0, 1))


def test_a_crop_shows_a_part_of_the_photo(resnet: ClassifierHandler) -> None:
    task = resnet.worker.task
    cropping = replace(task.model.preprocess, fit="crop", crop_fraction=0.8)
    with mock.patch.object(task, "model", replace(task.model, preprocess=cropping)):
        tensors, summary = read(explain_one(resnet, SLIC, WITH_SUMMARY)[1])
    left, top, right, bottom = summary["frame"]["box"]
    assert (left, top, right, bottom) == (8, 4, 40, 36)  # 40 × 48 resized to themselves, and 32 × 32 cut out
    seen = (tensors["photo_label_map"] >= 0).numpy()
    assert seen[4:36, 8:40].all() and seen.sum() == 32 * 32


def test_several_classes_share_their_map(resnet: ClassifierHandler) -> None:
    several, summary = read(explain_one(resnet, f"{SLIC}&target_class=[0,2]", WITH_SUMMARY)[1])
    alone, one = read(explain_one(resnet, f"{SLIC}&target_class=2", WITH_SUMMARY)[1])
    assert torch.equal(several["photo_label_map"], alone["photo_label_map"])
    assert summary["explanations"][1]["frame"] == one["frame"]
    masks = [[row.get("segmentation") for row in each["groups"]] for each in (*summary["explanations"], one)]
    assert masks[0] == masks[1] == masks[2]


def test_found_instances_are_themselves(segmenter: SegmenterHandler) -> None:
    headers = explanation("steps=2&segments=tensormask&outputs=photo_masks", WITH_SUMMARY)
    tensors, summary = read(answer_to(segmenter, headers, coarse_png()))
    found = [one["segmentation"] for one in detected(segmenter)]
    rows = [row["segmentation"] for row in summary["groups"] if row["kind"] == "segment"]
    assert rows and all(row in found for row in rows)
    assert summary["frame"]["photo"] == list(tensors["photo_label_map"].shape) == found[0]["size"]


def test_what_a_segmenter_next_door_finds(resnet: ClassifierHandler) -> None:
    found = parse_masks(RUNS, (HEIGHT, WIDTH), Limits())
    with mock.patch.object(remote_segments.RemoteSegments, "ask", return_value=lambda *_, **__: found):
        options = "segments=tensormask&baseline=black"
        _, answer = explain_one(resnet, f"{options}&steps=2&outputs=photo_masks")
        headers = {"Accept": JSON, "X-Explain-Options": f"{options}&absent=0&target_class=1"}
        (body,), context = ask(resnet, (headers, photo()))
    assert context.statuses[0] == 200, body
    own = f"masks={json.dumps(RUNS)}&outputs=photo_masks"
    sent = explain_one(resnet, f"steps=2&baseline=black&{own}")[1]
    assert [row.get("segmentation") for row in answer["groups"]] == [row.get("segmentation") for row in sent["groups"]]
    headers["X-Explain-Options"] = f"{own}&baseline=black&absent=0&target_class=1"
    (wanted,), _ = ask(resnet, (headers, photo()))
    assert json.loads(body) == json.loads(wanted) | {"segments": "tensormask"}


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("outputs=photo_masks", 400, "photo_masks are of groups: wanted masks, segments or pixels beside it"),
        ("outputs=photo_runs", 400, "photo_runs are of groups"),
        ("method=gradient&outputs=photo_masks,step_sizes&segments=grid", 400, "step_sizes: wanted method="),
        ("method=gradient&outputs=photo_masks", 400, "photo_masks are of groups"),
    ],
)
def test_refusals(resnet: ClassifierHandler, options: str, status: int, words: str) -> None:
    got, answer = explain_one(resnet, options)
    assert (got, answer["field"]) == (status, "outputs") and words in answer["message"]


@pytest.mark.parametrize("accept", [JSON, SAFETENSORS])
def test_an_answer_too_large_is_refused_before_the_model_is_asked(resnet: ClassifierHandler, accept: str) -> None:
    task, options = resnet.worker.task, "steps=2&segments=grid&rows=4&columns=1"
    large = encoded(noise_photo(10 * HEIGHT, 10 * WIDTH))
    (body,), _ = ask(resnet, (explanation(options, accept), large))
    limits = task.spec.limits.model_copy(update={"max_response_bytes": len(body)})
    spec = task.spec.model_copy(update={"limits": limits})
    with (
        mock.patch.object(task, "model", replace(task.model, spec=spec)),
        mock.patch("imagexplain.serving.worker.encode", side_effect=AssertionError),
    ):
        (body,), context = ask(resnet, (explanation(f"{options}&outputs=photo_masks", accept), large))
    assert context.statuses[0] == 413 and b"wanted an answer of at most" in body, body
