"""KServe's V1 protocol: ``{"instances": […]}`` to ``{"predictions": […]}``, and with ``explanations`` beside them.

Sources: the protocol's page (kserve.github.io, *V1 Inference Protocol*), and the released server's
``kserve/protocol/rest/v1_endpoints.py``. It leaves to models what an instance, a prediction and an explanation are;
here the last two are what this service itself answers in JSON, to the last digit, and an explanation has its tensor
beside it as ``attributions``, as KServe's explainers gave theirs. Options are fields of an instance, or of
``parameters``, which is an addition to the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from imagexplain.api.request import JSON
from imagexplain.api.response import check_size
from imagexplain.archive.spec import ModelSpec
from imagexplain.errors import RequestError, shown
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.protocols.instances import (
    TENSORS,
    failed,
    instances_of,
    json_fields,
    json_request,
    object_of,
    photo_fields,
    with_options,
)
from imagexplain.serving.protocols.tensors import Answer, read

INSTANCES = ("instances", "inputs")
"""Names of the list of instances; the released server takes either."""

ATTRIBUTIONS = "attributions"
"""Option that leaves the tensors of explanations out, if it is false."""

NUMBER_BYTES = 24
"""Bytes that a number of a tensor takes in JSON, at most, with its share of brackets."""


def split(raw: RawRequest, spec: ModelSpec) -> list[RawRequest]:
    """A request for each instance. Raises RequestError 400 or 413."""
    explains = raw.kind == "explanation"
    fields = json_fields(raw, spec, (*INSTANCES, "parameters"))
    name, instances = instances_of(fields, *INSTANCES)
    options = object_of(fields.get("parameters"), "parameters")
    tensors = explains and _wants_attributions(options.pop(ATTRIBUTIONS, None)) and spec.handler != "captioner"
    accept = TENSORS if tensors else JSON
    return [
        json_request(raw, with_options(photo_fields(one, field), options, field), accept)
        for field, one in ((f"{name}[{place}]", one) for place, one in enumerate(instances))
    ]


def join(raw: RawRequest, spec: ModelSpec, instances: Sequence[RawRequest], responses: Sequence[Response]) -> Response:
    """The answers in their order; the first failure, if there is one. Raises RequestError 413 if they are too large."""
    failure = failed(responses, "instances")
    if failure is not None:
        return failure
    if raw.kind == "prediction":
        return _response({"predictions": [msgspec.Raw(one.body) for one in responses]})
    if spec.handler == "captioner":
        bodies = [msgspec.Raw(one.body) for one in responses]
        return _response({"predictions": [_captions(one) for one in bodies], "explanations": bodies})
    answers = [read(one) for one in responses]
    least = sum(len(answer.json) + NUMBER_BYTES * answer.size for answer in answers)
    check_size(least, JSON, spec.limits.max_response_bytes)  # before it is made
    explanations = [_explanation(answer) for answer in answers]
    return _response({"predictions": [_prediction(one) for one in explanations], "explanations": explanations})


def _explanation(answer: Answer) -> dict[str, Any]:
    """The fields of an explanation, and its attributions: (C, H, W), of several classes with a first axis for them."""
    fields = msgspec.json.decode(answer.json, type=dict[str, msgspec.Raw])
    values = answer.attributions()
    return fields if values is None else {**fields, ATTRIBUTIONS: values.tolist()}


def _prediction(explanation: dict[str, Any]) -> dict[str, Any]:
    """The prediction of the photo, as the service has it, from the classes that an explanation lists."""
    if "explanations" in explanation:
        explanation = {**msgspec.json.decode(explanation["explanations"], type=list[dict[str, msgspec.Raw]])[0]}
    return {name: explanation[own] for name, own in _OF_PREDICTIONS.items() if own in explanation}


def _captions(explanation: msgspec.Raw) -> dict[str, Any]:
    """The captions that an explanation explains, each with its graph, in the form of a prediction's."""
    fields = msgspec.json.decode(explanation)
    graphs = [{name: value for name, value in one.items() if name not in _OF_WORDS} for one in fields["graphs"]]
    return {**fields, "graphs": graphs}


_OF_WORDS = ("words", "map", "own_caption", "score_kind")
"""Fields of a graph's explanation that are not of its caption."""

_OF_PREDICTIONS = {"model": "model", "score_kind": "score_kind", "predictions": "top"}
"""Fields of a prediction, by the names that they have in an explanation."""


def _wants_attributions(value: Any) -> bool:
    wanted = True if value is None else msgspec.json.decode(value)
    if not isinstance(wanted, bool):
        raise RequestError(400, f"parameters.{ATTRIBUTIONS}", f"wanted true or false, got {shown(wanted)}")
    return wanted


def _response(answer: dict[str, Any]) -> Response:
    return Response(200, JSON, msgspec.json.encode(answer))
