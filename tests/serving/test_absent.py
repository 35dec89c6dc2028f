"""Predictions of a photo without some of its groups."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from handlers.classifier import ClassifierHandler
from imagexplain.api import schema
from imagexplain.serving import path_attribution
from imagexplain.serving.tasks import classifier
from tests.serving.asking import ask, base64_png, explain_one, noise_png, prediction
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import CIFAR_LABELS, classifier_of, forget, write_timm
from tests.tensors import unpacked
from tests.wire.photos import encoded, noise_photo

JSON, GZIP = "application/json", "application/gzip"
ALL = "absent=0,1,2,3"
GRID = "segments=grid&rows=2&columns=2"


def predict(handler: ClassifierHandler, options: str, photo: bytes | None = None, cache: str = "") -> tuple[int, Any]:
    """Status and answer of one prediction."""
    sent = {**prediction(JSON), "X-Explain-Options": options, "Cache-Control": cache}
    (body,), context = ask(handler, (sent, photo or noise_png()))
    return context.statuses[0], json.loads(body)


def scores(handler: ClassifierHandler, options: str, photo: bytes | None = None) -> Tensor:
    """(classes,) scores of one prediction."""
    sent = {**prediction(GZIP), "X-Explain-Options": options}
    (body,), context = ask(handler, (sent, photo or noise_png()))
    assert context.statuses[0] == 200, body
    output: Tensor = unpacked(body)["output"]
    return output[0]


class Quadrants(nn.Module):
    """The sum of each quadrant, as the scores of the first four classes."""

    def forward(self, images: Tensor) -> Tensor:
        sums = images.unflatten(2, (2, -1)).unflatten(4, (2, -1)).sum((1, 3, 5)).flatten(1)
        return torch.cat([sums, torch.zeros(len(sums), len(CIFAR_LABELS) - 4)], 1)


@pytest.fixture
def quadrants(handler: ClassifierHandler) -> Iterator[ClassifierHandler]:
    """A model whose scores are the sums over the cells of a grid of 2 × 2."""
    task = handler.worker.task
    with mock.patch.object(task, "model", replace(task.model, network=Quadrants())):
        yield handler


def test_scores_without_a_cell_by_hand(quadrants: ClassifierHandler) -> None:
    photo = encoded(Image.new("RGB", (40, 40), (255, 255, 255)))  # 1 everywhere in the model's input
    cell = 3 * 16 * 16
    assert scores(quadrants, "", photo)[:5].tolist() == [cell] * 4 + [0]
    assert scores(quadrants, f"{GRID}&baseline=zero&absent=2", photo)[:5].tolist() == [cell, cell, 0, cell, 0]
    assert scores(quadrants, f"{GRID}&baseline=black&absent=0,3", photo)[:4].tolist() == [-cell, cell, cell, -cell]
    status, answer = predict(quadrants, f"{GRID}&baseline=zero&absent=2&target_class=cat", photo)
    assert status == 200 and answer["absent"] == [2] and answer["segments"] == "grid"
    assert [(row["label"], row["score"]) for row in answer["targets"]] == [("cat", cell)]
    told = {"photo": [40, 40], "input": [32, 32], "box": [0, 0, 40, 40]}
    assert msgspec.convert(answer, schema.ClassPrediction).frame == msgspec.convert(told, schema.Frame)


def test_what_is_absent_is_what_the_mask_covers(handler: ClassifierHandler) -> None:
    """On a photo of the model's own size: the same as if its pixels were painted over."""
    pixels = np.asarray(noise_photo(32, 32)).copy()
    mask = np.zeros((32, 32), dtype=np.bool_)
    mask[3:20, 5:30] = True
    photo = encoded(Image.fromarray(pixels))
    context = Context(headers=[{"Accept": GZIP}])
    row = {"image": photo, "masks": json.dumps([mask.tolist()]).encode(), "absent": b"0", "baseline": b"white"}
    (body,) = handler.handle([row], context)
    pixels[mask] = 255
    assert torch.equal(unpacked(body)["output"][0], scores(handler, "", encoded(Image.fromarray(pixels))))
    outside = pixels.copy()
    outside[~mask] = 0
    row |= {"absent": b"1", "baseline": b"black"}
    (body,) = handler.handle([{**row, "image": encoded(Image.fromarray(pixels))}], Context(headers=[{"Accept": GZIP}]))
    assert torch.equal(unpacked(body)["output"][0], scores(handler, "", encoded(Image.fromarray(outside))))


@pytest.mark.parametrize("baseline", ["zero", "black", "mean", "blur", "uniform&draws=3&seed=2"])
def test_without_all_the_score_is_the_baselines(resnet: ClassifierHandler, baseline: str) -> None:
    options = f"{GRID}&baseline={baseline}"
    _, explained = explain_one(resnet, f"{options}&steps=2&target_class=1")
    left = scores(resnet, f"{options}&{ALL}")
    assert left[1].item() == pytest.approx(explained["baseline_score"], abs=1e-5)
    assert explained["baseline_score"] != pytest.approx(explained["score"], abs=1e-4)


def test_without_a_segment_and_without_the_rest_nothing_is_left(resnet: ClassifierHandler) -> None:
    runs = [{"size": [40, 48], "counts": [300, 500, 1120]}]
    options = f"masks={json.dumps(runs)}&baseline=uniform&draws=2"
    _, explained = explain_one(resnet, f"{options}&steps=2&target_class=1")
    assert [row["kind"] for row in explained["groups"]] == ["segment", "rest", "whole"]
    assert scores(resnet, f"{options}&absent=0,1")[1].item() == pytest.approx(explained["baseline_score"], abs=1e-5)


@pytest.mark.parametrize("options", ["method=occlusion&segments=slic&n_segments=6", "method=kernel_shap&n_segments=5"])
def test_groups_and_baseline_are_those_of_the_same_explanation(resnet: ClassifierHandler, options: str) -> None:
    """Of a model whose path starts from noise, a method of absent pixels from black; some make segments unasked."""
    task = resnet.worker.task
    with mock.patch.object(task, "defaults", replace(task.defaults, baseline="uniform")):
        _, explained = explain_one(resnet, f"{options}&target_class=0")
        assert explained["baseline"] == "black"
        rows = ",".join(str(row) for row, group in enumerate(explained["groups"]) if group["kind"] != "whole")
        assert torch.equal(scores(resnet, f"{options}&absent={rows}"), scores(resnet, f"{GRID}&baseline=black&{ALL}"))


def test_a_method_without_a_baseline_leaves_the_choice(resnet: ClassifierHandler) -> None:
    options = f"method=grad_cam&{GRID}"
    white = scores(resnet, f"{options}&baseline=white&{ALL}")
    assert torch.equal(white, scores(resnet, f"{GRID}&baseline=white&{ALL}"))
    assert not torch.equal(white, scores(resnet, f"{options}&{ALL}"))


REFUSED = {
    "": (400, "absent", "wanted masks or segments beside it"),
    "absent=": (400, "absent", "wanted a list of rows of the table of groups, from 0, got []"),
    "absent=one": (400, "absent", "wanted a list of rows"),
    "absent=-1": (400, "absent", "wanted a list of rows"),
    "absent=1.0": (400, "absent", "wanted a list of rows"),
    "absent=5": (422, "absent", "wanted rows in 0..4 of the table of groups, got 5"),
    "absent=0,4": (422, "absent", "without the whole nothing of the photo is left, got row 4"),
    "absent=" + ",".join(["1"] * 502): (413, "absent", "wanted at most 501 rows, got 502"),
    f"absent={10**17}": (422, "absent", "wanted rows in 0..4"),
    "absent=0&n_segments=4": (400, "n_segments", "wanted segments=slic beside it, got segments=grid"),
    "absent=0&baseline=image": (400, "baseline_image", "got none"),
    "absent=0&baseline=uniform&draws=65": (413, "draws", "in 1..64"),
    "absent=0&target_class=horses": (422, "target_class", "unknown class 'horses'"),
    "absent=0&contrast_class=10": (422, "contrast_class", "in 0..9"),
    "absent=0&method=guess": (400, "method", "unknown"),
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_absent(handler: ClassifierHandler, options: str) -> None:
    status, field, words = REFUSED[options]
    got, answer = predict(handler, f"{GRID}&{options}" if options else "absent=0")
    assert (got, answer["field"]) == (status, field) and words in answer["message"], answer


def test_other_options_are_ignored_as_in_any_prediction(handler: ClassifierHandler) -> None:
    (plain,), _ = ask(handler, (prediction(JSON), noise_png()))
    for options in (f"{GRID}&rows=2", "segments=nothing&steps=0", "baseline=image", "masks=[7]", "%%%&="):
        (body,), context = ask(handler, ({**prediction(JSON), "X-Explain-Options": options}, noise_png()))
        assert context.statuses[0] == 200 and body == plain
    assert scores(handler, f"{GRID}&steps=0&what=ever&absent=1").equal(scores(handler, f"{GRID}&absent=1"))


def test_forms_of_a_request(handler: ClassifierHandler) -> None:
    wanted = predict(handler, f"{GRID}&absent=1,3")
    assert wanted[0] == 200 and wanted[1]["absent"] == [1, 3]
    for text in ("[1, 3]", " 1 , 3,", "1,3,1"):
        assert predict(handler, f"{GRID}&absent={text}") == wanted
    fields = {"segments": "grid", "rows": 2, "columns": 2, "absent": [1, 3]}
    context = Context(headers=[{"Accept": JSON, "Content-Type": JSON}])
    (body,) = handler.handle([{"body": json.dumps({"image": base64_png(), **fields}).encode()}], context)
    assert (context.statuses[0], json.loads(body)) == wanted
    parts = {name: str(value).encode() for name, value in fields.items()}
    (body,) = handler.handle([{"image": noise_png(), **parts}], Context(headers=[{"Accept": JSON}]))
    assert json.loads(body) == wanted[1]


def test_scores_are_cached_and_computed_anew_where_that_is_asked_for(handler: ClassifierHandler) -> None:
    options = f"{GRID}&baseline=uniform&draws=3&absent=1"
    with mock.patch.object(classifier, "predict", wraps=path_attribution.predict) as computed:
        first = predict(handler, options)
        assert predict(handler, options) == first
        assert [len(call.args[1]) for call in computed.call_args_list] == [3]
        assert predict(handler, options, cache="no-cache") == first
        assert len(computed.call_args_list) == 2


def test_draws_that_would_take_too_long_are_refused(handler: ClassifierHandler) -> None:
    task = handler.worker.task
    options = f"{GRID}&baseline=uniform&draws=64&absent=1"
    with mock.patch.object(task, "seconds_per_point", 100.0):
        status, answer = predict(handler, options)
    assert (status, answer["field"]) == (413, "draws"), answer
    assert predict(handler, options)[0] == 200


def test_a_batch_is_answered_as_each_alone(handler: ClassifierHandler) -> None:
    options = ["", f"{GRID}&absent=1", f"{GRID}&absent=9", f"{GRID}&baseline=uniform&draws=2&absent=0"]
    alone = []
    for one in options:
        forget(handler)
        alone.append(predict(handler, one))
    forget(handler)
    asked = [({**prediction(JSON), "X-Explain-Options": one}, noise_png()) for one in options]
    bodies, context = ask(handler, *asked)
    for number, body in enumerate(bodies):
        status, answer = alone[number]
        assert context.statuses[number] == status
        if status == 200:
            got = {row["label"]: row["score"] for row in json.loads(body)["predictions"]}
            assert got == pytest.approx({row["label"]: row["score"] for row in answer["predictions"]}, abs=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_every_kind_of_head(tmp_path: Path, activation: str) -> None:
    handler = classifier_of(write_timm(tmp_path, "resnet", head={"activation": activation}))
    _, explained = explain_one(handler, f"{GRID}&baseline=uniform&draws=2&steps=2&target_class=2")
    status, answer = predict(handler, f'{GRID}&baseline=uniform&draws=2&target_class=["fox"]&{ALL}')
    assert status == 200 and answer["score_kind"] == explained["score_kind"]
    (row,) = answer["targets"]
    assert row["score"] == pytest.approx(explained["baseline_score"], abs=1e-5)
    assert ("probability" in row) is (activation == "sigmoid")
    if activation == "sigmoid":
        assert row["probability"] == pytest.approx(torch.tensor(row["score"]).sigmoid().item())


@pytest.mark.parametrize("protocol", ["kserve_v1", "kserve_v2"])
def test_in_the_words_of_other_protocols(handler: ClassifierHandler, protocol: str) -> None:
    _, wanted = predict(handler, f"{GRID}&absent=1,3")
    parameters = {"segments": "grid", "rows": 2, "columns": 2, "absent": [1, 3]}
    body: dict[str, Any] = {"instances": [{"b64": base64_png()}], "parameters": parameters}
    if protocol == "kserve_v2":
        photos = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64_png()]}
        body = {"inputs": [photos], "outputs": [{"name": "json"}], "parameters": parameters}
    context = Context(headers=[{"X-Explain-Protocol": protocol}])
    (raw,) = handler.handle([{"body": bytearray(json.dumps(body).encode())}], context)
    assert context.statuses[0] == 200, raw
    answer = json.loads(raw)
    found = answer["predictions"][0] if protocol == "kserve_v1" else json.loads(answer["outputs"][0]["data"][0])
    assert found == wanted
