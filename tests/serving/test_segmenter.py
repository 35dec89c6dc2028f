"""The segmenter's handler, called as TorchServe calls it, on a small seeded TensorMask."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_length
from safetensors.torch import load

from handlers.segmenter import SegmenterHandler
from imagexplain.archive.spec import ResizeSpec
from imagexplain.limits import Limits
from imagexplain.serving.cache import Cache
from imagexplain.vision.decode import decode
from tests.pictures import panel
from tests.serving.asking import answer_to, coarse_pixels, coarse_png, detected, explanation
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import SHAPE_LABELS, TENSORMASK_SETTINGS, TENSORMASK_SIZE, segmenter_of, write_tensormask
from tests.tensors import unpacked


@pytest.fixture
def handler(segmenter: SegmenterHandler) -> SegmenterHandler:
    """The TensorMask's, which remembers nothing of other tests."""
    segmenter.worker.task.instances, segmenter.worker.explanations = Cache(10_000_000), Cache(10_000_000)
    return segmenter


def test_an_input_that_would_take_too_much_memory_is_refused(handler: SegmenterHandler) -> None:
    task = handler.worker.task
    limits = task.spec.limits.model_copy(update={"max_input_pixels": 70 * 50})
    handler.worker.task = replace(task, spec=task.spec.model_copy(update={"limits": limits}))
    try:
        assert answer_to(handler, {"Accept": "application/json"}, coarse_png())
        refused = json.loads(answer_to(handler, {"Accept": "application/json"}, coarse_png(width=51), status=413))
    finally:
        handler.worker.task = task
    assert (
        refused["field"] == "image"
        and "wanted at most 3,500 pixels as the model sees them, got 51 × 70" in refused["message"]
    )


def test_prediction_tensors(handler: SegmenterHandler) -> None:
    result = unpacked(answer_to(handler, {}, coarse_png()))
    count = len(result["scores"])
    assert 0 < count <= 6
    assert result["pred_masks"].shape == (count, 70, 50) and result["pred_masks"].dtype == torch.bool
    assert result["boxes"].shape == (count, 4) and result["classes"].shape == (count,)
    assert result["labels"] == [SHAPE_LABELS[label] for label in result["classes"].tolist()]
    assert result["scores"].diff().le(0).all()
    tensors = load(answer_to(handler, {"Accept": "application/x-safetensors"}, coarse_png()))
    assert torch.equal(tensors["pred_masks"].bool(), result["pred_masks"])


def test_prediction_as_json_holds_the_masks_as_coco_writes_them(handler: SegmenterHandler) -> None:
    masks = unpacked(answer_to(handler, {}, coarse_png()))["pred_masks"]
    rows = detected(handler)
    for row, mask in zip(rows, masks, strict=True):
        decoded = run_length.decode({**row["segmentation"], "counts": row["segmentation"]["counts"].encode()})
        assert np.array_equal(decoded.astype(bool), mask.numpy()) and row["area"] == int(mask.sum())


def test_prediction_picture_has_the_photos_size(handler: SegmenterHandler) -> None:
    assert panel(answer_to(handler, {"Accept": "image/png"}, coarse_png())).size == (50, 70)
    plain = answer_to(handler, {"Accept": "image/png", "X-Explain-Options": "picture=plain"}, coarse_png())
    assert Image.open(io.BytesIO(plain)).size == (50, 70)


def test_the_original_mask_servers_clients(handler: SegmenterHandler) -> None:
    body = json.dumps({"img_data": coarse_pixels()[..., ::-1].transpose(2, 0, 1).tolist()}).encode()
    result = unpacked(answer_to(handler, {"Content-Type": "application/json"}, body))
    assert set(result) == {"pred_masks"}
    assert torch.equal(result["pred_masks"], unpacked(answer_to(handler, {}, coarse_png()))["pred_masks"])


def test_the_threshold_is_the_requests(handler: SegmenterHandler) -> None:
    scores = [row["score"] for row in detected(handler)]
    middle = (scores[0] + scores[-1]) / 2
    assert [row["score"] for row in detected(handler, f"threshold={middle}")] == [s for s in scores if s > middle]
    body = json.dumps({"img_data": coarse_pixels()[..., ::-1].transpose(2, 0, 1).tolist(), "threshold": 1}).encode()
    result = unpacked(answer_to(handler, {"Content-Type": "application/json"}, body))
    assert result["pred_masks"].shape == (0, 70, 50) and result["labels"] == []
    answer_to(handler, {"X-Explain-Options": "threshold=1.5"}, coarse_png(), 400)


def test_other_options_of_a_prediction_are_ignored(handler: SegmenterHandler) -> None:
    assert detected(handler, "target_class=cat&nonsense=1") == detected(handler)


def test_nothing_found_is_an_empty_answer(handler: SegmenterHandler) -> None:
    assert detected(handler, "threshold=1") == []
    picture = answer_to(handler, {"Accept": "image/png", "X-Explain-Options": "threshold=1"}, coarse_png())
    assert np.array_equal(np.asarray(panel(picture)), coarse_pixels())
    told = json.loads(answer_to(handler, explanation("threshold=1"), coarse_png(), 422))
    assert told["field"] == "threshold" and "nothing was found" in told["message"]


def test_an_explanation_adds_up_to_its_score(handler: SegmenterHandler) -> None:
    options = "steps=300&baseline=zero&segments=grid&rows=2&columns=2"
    answer = json.loads(answer_to(handler, explanation(options), coarse_png()))
    best = detected(handler)[0]
    assert (answer["detection"], answer["target_label"]) == (0, best["label"])
    assert answer["score"] == pytest.approx(float(torch.tensor(best["score"]).logit()), rel=1e-4)
    assert answer["detection_score"] == pytest.approx(best["score"], rel=1e-5)
    assert answer["relative_residual"] < 0.05
    whole = answer["groups"][-1]
    cells = [row["attribution"] for row in answer["groups"] if row["kind"] == "segment"]
    assert len(cells) == 4 and sum(cells) == pytest.approx(whole["attribution"], abs=1e-5)
    assert whole["attribution"] + answer["residual"] == pytest.approx(
        answer["score"] - answer["baseline_score"], abs=1e-4
    )


def test_the_target_is_a_detection_or_a_class(handler: SegmenterHandler) -> None:
    rows = detected(handler)
    last = len(rows) - 1
    answer = json.loads(answer_to(handler, explanation(f"detection={last}&steps=2"), coarse_png()))
    assert (answer["detection"], answer["target_label"]) == (last, rows[last]["label"])
    assert answer["box"] == rows[last]["box"]
    by_class = json.loads(answer_to(handler, explanation(f"target_class={rows[last]['label']}&steps=2"), coarse_png()))
    assert by_class["detection"] == [row["label"] for row in rows].index(rows[last]["label"])
    for options, field in ((f"detection={last + 1}", "detection"), ("target_class=cat", "target_class")):
        assert json.loads(answer_to(handler, explanation(options), coarse_png(), 422))["field"] == field
    both = answer_to(handler, explanation("detection=0&target_class=star"), coarse_png(), 400)
    assert json.loads(both)["field"] == "detection"
    missing = set(SHAPE_LABELS) - {row["label"] for row in rows}
    for label in missing:
        told = json.loads(answer_to(handler, explanation(f"target_class={label}"), coarse_png(), 422))
        assert f"no {label} was found, but " in told["message"]


def test_a_segmenter_explains_by_its_own_instances(handler: SegmenterHandler) -> None:
    answer = json.loads(answer_to(handler, explanation("segments=tensormask&steps=2"), coarse_png()))
    segments = [row for row in answer["groups"] if row["kind"] == "segment"]
    masks = unpacked(answer_to(handler, {}, coarse_png()))["pred_masks"]
    distinct = {mask.numpy().tobytes() for mask in masks if mask.any()}
    assert len(segments) == len(distinct)
    assert sorted(row["area"] for row in segments) == sorted(
        int(np.frombuffer(mask, dtype=bool).sum()) for mask in distinct
    )


def test_explanations_are_remembered(handler: SegmenterHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer_to(handler, explanation("steps=3"), coarse_png())
    monkeypatch.setattr(handler.worker.task.engine.network, "forward", None)
    assert answer_to(handler, explanation("steps=3"), coarse_png()) == first


@pytest.mark.parametrize("size", [(1, 1), (4, 300), (300, 4)])
def test_photos_of_any_shape(handler: SegmenterHandler, size: tuple[int, int]) -> None:
    photo = coarse_png(height=size[0], width=size[1])
    for row in detected(handler, body=photo):
        assert row["segmentation"]["size"] == list(size)
    answer = answer_to(handler, explanation("steps=2&threshold=0", "image/png"), photo)
    assert panel(answer).size == size[::-1]


def test_hundreds_of_instances_in_a_large_photo(tmp_path: Path) -> None:
    """They never stand in memory as hundreds of photos."""
    settings = TENSORMASK_SETTINGS | {"detections": 300, "candidates": 3000, "nms_threshold": 0.9}
    handler = segmenter_of(write_tensormask(tmp_path, settings=settings, resize={"shorter": 128, "longer": 256}))
    photo = coarse_png(height=2000, width=3000)
    detections = handler.worker.task.engine.predict(handler.worker.task.engine.preprocess(decode(photo, Limits())), 0)
    assert len(detections) == 300 and detections.nbytes < 300 * 2000 * 3000 / 2
    rows = detected(handler, "threshold=0", photo)
    assert len(rows) == 300 and all(row["segmentation"]["size"] == [2000, 3000] for row in rows)
    headers = {"Accept": "application/x-safetensors", "X-Explain-Options": "threshold=0"}
    told = json.loads(answer_to(handler, headers, photo, 413))
    assert told["field"] == "outputs" and "this one takes 1,800," in told["message"]
    few = unpacked(answer_to(handler, {"X-Explain-Options": f"threshold={rows[4]['score']}"}, photo))
    assert few["pred_masks"].shape == (4, 2000, 3000)
    assert few["pred_masks"].sum((1, 2)).tolist() == [row["area"] for row in rows[:4]]
    answer = json.loads(answer_to(handler, explanation("threshold=0&steps=2&segments=tensormask"), photo))
    assert len(answer["groups"]) > 100


def test_photos_are_resized_where_the_spec_says_so(tmp_path: Path) -> None:
    handler = segmenter_of(write_tensormask(tmp_path, resize={"shorter": 50, "longer": 70}))
    large = coarse_png(height=280, width=200)
    rows = detected(handler, body=large)
    assert rows and all(row["segmentation"]["size"] == [280, 200] for row in rows)
    answer = json.loads(answer_to(handler, explanation("segments=grid&rows=1&columns=1&steps=2"), large))
    assert answer["groups"][0]["area"] == 70 * 50
    assert ResizeSpec(shorter=50, longer=70).size((1000, 100)) == (70, 7)
    assert ResizeSpec(shorter=50, longer=70).size((1, 1000)) == (1, 70)


def test_a_bad_request_harms_no_neighbour(handler: SegmenterHandler) -> None:
    context = Context(headers=[{}, explanation("steps=2"), explanation("colour=red")])
    bodies = handler.handle([{"body": b"no photo"}, {"body": coarse_png()}, {"body": coarse_png()}], context)
    assert [context.statuses[index] for index in range(3)] == [415, 200, 400], bodies


def test_labels_must_match(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels: wanted 3, one for each class of the model, got 2"):
        SegmenterHandler().initialize(Context(model_dir=write_tensormask(tmp_path, labels=("a", "b"))))


def test_unknown_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"settings: wanted some of mask_sizes, .*, got colour"):
        SegmenterHandler().initialize(Context(model_dir=write_tensormask(tmp_path, settings={"colour": "red"})))


def test_without_detectron2_the_worker_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2.config", None)
    wanted = r"engine detectron2: .*; wanted detectron2 and tensormask, from https://github\.com/\S+ and its folder"
    with pytest.raises(ImportError, match=wanted):
        SegmenterHandler().initialize(Context(model_dir=write_tensormask(tmp_path, engine="detectron2")))


def test_one_class(tmp_path: Path) -> None:
    """The commonest detector of one's own."""
    size = replace(TENSORMASK_SIZE, classes=1)
    handler = segmenter_of(write_tensormask(tmp_path, size=size, labels=("balloon",)))
    assert {row["label"] for row in detected(handler)} == {"balloon"}
    answer = json.loads(answer_to(handler, explanation("target_class=balloon&steps=2&segments=grid"), coarse_png()))
    assert (answer["target_class"], answer["target_label"]) == (0, "balloon")


def test_both_layouts_of_lists(handler: SegmenterHandler) -> None:
    bgr = coarse_pixels()[..., ::-1]
    bodies = [json.dumps({"img_data": each.tolist()}).encode() for each in (bgr, bgr.transpose(2, 0, 1))]
    last, first = (unpacked(answer_to(handler, {"Content-Type": "application/json"}, body)) for body in bodies)
    assert torch.equal(last["pred_masks"], first["pred_masks"]) and last["pred_masks"].shape[1:] == bgr.shape[:2]


def test_no_photo_is_looked_at_once_time_is_over(handler: SegmenterHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of a batch are answered one after the other: those before may have taken all of its time."""
    answer_to(handler, {}, coarse_png(0))
    serving = handler.worker.task.spec.serving.model_copy(update={"response_timeout_s": -1})
    monkeypatch.setattr(handler.worker.task, "spec", handler.worker.task.spec.model_copy(update={"serving": serving}))
    refusal = json.loads(answer_to(handler, {}, coarse_png(977), 503))
    assert refusal["field"] == "image" and "before this photo's turn" in refusal["message"]
    assert answer_to(handler, {}, coarse_png(0))  # remembered, so that it costs no time
