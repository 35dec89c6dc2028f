"""Answers of the handlers against the schemas that the OpenAPI document has of them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from handlers.captioner import CaptionerHandler
from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.api.openapi import document
from imagexplain.errors import RequestError
from imagexplain.serving.interface import GENERIC
from imagexplain.serving.task import Payload
from tests.serving.asking import answer_to, ask, coarse_png, explanation, noise_png, prediction
from tests.serving.captions import GRAPH, ask_many

DOCUMENT = document(GENERIC)
WITH_NAN = [{"label": "cat", "index": 0, "score": float("nan"), "probability": 0.5}]


def strict(schema: Any) -> Any:
    """The schema, which takes no entry of an object that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(part) for name, part in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed


COMPONENTS = strict(deepcopy(DOCUMENT["components"]["schemas"]))


def check(path: str, status: int, body: bytes) -> Any:
    """The answer in JSON, once it is what the document says of the path and the status."""
    response = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    answer = json.loads(body)
    schema = response["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": {"schemas": COMPONENTS}}).validate(answer)
    return answer


@pytest.mark.parametrize(
    "options",
    [
        "steps=4",
        "steps=4&quadrature=left&target_class=3&baseline=uniform&draws=2",
        "steps=4&baseline=uniform&draws=2&segments=grid&rows=2&columns=2",
        "tolerance=0.5&segments=slic&n_segments=5",
        "steps=3&pixels=true&outputs=absolute_directional",
        "method=blur_ig&steps=3&segments=grid",
        "method=smoothgrad&samples=2",
        "method=kernel_shap&samples=40&n_segments=4&baseline=uniform&draws=2",
        'method=gradient&smooth={"samples":2}',
        "combine=gradient,grad_cam&normalized=true",
        "steps=3&target_class=0&contrast_class=1",
        'steps=3&target_class=[0,"dog"]&segments=grid',
        "method=gradient&target_class=[2]",
    ],
)
def test_explanations_of_classifiers(resnet: ClassifierHandler, options: str) -> None:
    (body,), context = ask(resnet, (explanation(options), noise_png()))
    assert context.statuses[0] == 200, body
    check("/explanations/classifier", 200, body)


def test_masks_and_what_becomes_of_them(resnet: ClassifierHandler) -> None:
    runs = [{"size": [40, 48], "counts": [0, 1920], "label": name} for name in ("all", "every")]
    runs.append({"size": [40, 48], "counts": [1920], "label": "none"})
    (body,), _ = ask(resnet, (explanation(f"steps=3&masks={json.dumps(runs)}"), noise_png()))
    answer = check("/explanations/classifier", 200, body)
    assert answer["dropped"] == ["none"] and answer["merged"]


def test_predictions_of_classifiers(resnet: ClassifierHandler) -> None:
    (body,), _ = ask(resnet, (prediction(), noise_png()))
    check("/predictions/classifier", 200, body)


def test_numbers_that_are_not_finite(resnet: ClassifierHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(resnet.worker.task),
        "payload",
        lambda *_: Payload({"model": "a", "score_kind": "logit", "predictions": WITH_NAN}),
    )
    (body,), _ = ask(resnet, (prediction(), noise_png()))
    assert check("/predictions/classifier", 200, body)["non_finite"] == ["predictions"]


@pytest.mark.parametrize("options", ["steps=3", "steps=3&segments=tensormask", "method=input_x_gradient&segments=grid"])
def test_segmenters(segmenter: SegmenterHandler, options: str) -> None:
    accept = {"Accept": "application/json"}
    found = check("/predictions/segmenter", 200, answer_to(segmenter, accept, coarse_png()))
    assert found["detections"]
    body = answer_to(segmenter, {**accept, "explain": "True", "X-Explain-Options": options}, coarse_png())
    assert check("/explanations/segmenter", 200, body)["detection"] == 0


def test_captioners(captioner: CaptionerHandler) -> None:
    asked: tuple[tuple[Any, dict[str, Any]], ...] = (
        ("prediction", {"graph": GRAPH, "n_best": 2, "node_limit": 4}),
        ("prediction", {"graphs": {"first": GRAPH, "second": GRAPH}}),
        ("explanation", {"graph": GRAPH, "map": True}),
        ("explanation", {"graphs": [GRAPH], "caption": ["a red star"], "tolerance": 0.5, "words": [0]}),
    )
    for (kind, _), (status, body) in zip(asked, ask_many(captioner, *asked), strict=True):
        assert status == 200, body
        check(f"/{kind}s/captioner", status, body)


@pytest.mark.parametrize(
    ("options", "accept", "status"),
    [
        ("steps=0", "application/json", 400),
        ("steps=4000", "application/json", 413),
        ("target_class=no such", "application/json", 422),
        ("", "text/html", 406),
    ],
)
def test_refusals(resnet: ClassifierHandler, options: str, accept: str, status: int) -> None:
    (body,), context = ask(resnet, (explanation(options, accept), noise_png()))
    assert context.statuses[0] == status
    check("/explanations/classifier", status, body)


def test_every_refusal_has_the_documents_form() -> None:
    for status in (400, 406, 413, 415, 422, 500, 503):
        check("/explanations/classifier", status, RequestError(status, "steps", "wanted").body())
