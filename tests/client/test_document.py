"""The client against the OpenAPI document: every option, form, answer and error of the one is the other's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from PIL.Image import Image

from imagexplain.api.openapi import ANSWERS, MEANINGS, RETRIED, document
from imagexplain.client import message
from imagexplain.client.answers import Prediction, Summary
from imagexplain.client.errors import KINDS, RefusedError, ServerFaultError, StatusError, status_error
from imagexplain.client.exchange import TRANSIENT
from imagexplain.client.options import ExplainOptions, PredictOptions
from imagexplain.serving.interface import GENERIC

DOCUMENT = document(GENERIC, generic=True)
SCHEMAS = DOCUMENT["components"]["schemas"]
KNOWN = {"Prediction": PredictOptions, "Explanation": ExplainOptions}
SIMPLE = {int: "integer", float: "number", bool: "boolean", str: "string"}
BESIDE = {"image", "img_data", "masks"}
"""Fields that are arguments of the client's own; `img_data` is the original servers' form of a photo."""


def options_of(endpoint: str) -> dict[str, list[dict[str, Any]]]:
    """The schemas of each option, one for each kind of model that has it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in ("classifier", "segmenter", "captioner"):
        for name, schema in SCHEMAS[f"{kind}.{endpoint}Json"]["properties"].items():
            found.setdefault(name, []).append(schema)
    return found


def hints_of(endpoint: str) -> dict[str, Any]:
    """The client's type of each option."""
    return get_type_hints(KNOWN[endpoint], localns={"Image": Image})


def members(hint: Any) -> Iterator[Any]:
    """The types of a union, or the type itself."""
    if get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            yield from members(each)
    else:
        yield hint


@pytest.mark.parametrize("endpoint", KNOWN)
def test_the_options_are_those_of_the_document(endpoint: str) -> None:
    assert hints_of(endpoint).keys() == options_of(endpoint).keys() - BESIDE


@pytest.mark.parametrize("endpoint", KNOWN)
def test_the_types_of_the_options_are_those_of_the_document(endpoint: str) -> None:
    hints, told = hints_of(endpoint), 0
    for name, schemas in options_of(endpoint).items():
        if name in BESIDE:
            continue
        first, *_ = get_args(hints[name]) if get_origin(hints[name]) is Sequence else members(hints[name])
        words = set()
        for schema in schemas:
            words |= {*schema.get("enum", ()), *schema.get("items", {}).get("enum", ())} - {None}
        if get_origin(first) is Literal and words:
            assert set(get_args(first)) == words, name
            told += 1
        elif words:
            assert name == "method", "a method is one file, and no list of the client's"
        elif hints[name] in SIMPLE:
            assert {SIMPLE[hints[name]], "null"} == set(schemas[0]["type"]), name
            told += 1
    assert told >= {"Prediction": 6, "Explanation": 30}[endpoint]


@pytest.mark.parametrize("endpoint", ["prediction", "explanation"])
def test_the_answers_are_those_of_the_document(endpoint: Any) -> None:
    types = {each for kinds in ANSWERS.values() for each in kinds[endpoint]}
    assert types == set(get_args({"prediction": Prediction, "explanation": Summary}[endpoint]))
    content = DOCUMENT["paths"][f"/{endpoint}s/{{model}}"]["post"]["responses"]["200"]["content"]
    schema = content["application/json"]["schema"]
    assert {each["$ref"].rpartition("/")[2] for each in schema["anyOf"]} == {each.__name__ for each in types}
    assert set(content) <= {message.JSON, message.GZIP, message.PNG, message.SAFETENSORS}


def test_the_headers_are_those_of_the_document() -> None:
    parameters = DOCUMENT["paths"]["/explanations/{model}"]["parameters"]
    named = {each["name"] for each in parameters if "name" in each}
    parts = [each["$ref"].rpartition("/")[2] for each in parameters if "$ref" in each]
    shared = {DOCUMENT["components"]["parameters"][part]["name"] for part in parts}
    assert named == {"X-Explain-Options", "options"} and shared == {"model", "Cache-Control", "X-Request-Id"}


@pytest.mark.parametrize("status", MEANINGS)
def test_every_error_of_the_document_has_a_kind(status: int) -> None:
    error = status_error("predictions/bit", status, b'{"code": 1, "error": "word", "field": "f", "message": "m"}')
    assert isinstance(error, RefusedError if status < 500 else ServerFaultError)
    assert type(error) is KINDS.get(status, type(error)) and (error.field, error.message) == ("f", "m")


def test_what_is_tried_again_is_what_the_document_says_and_the_client_can_hope_for() -> None:
    """Whoever comes back after 504 lets the server work in vain for as long once more."""
    again = {status for status, kind in KINDS.items() if issubclass(kind, TRANSIENT)}
    assert again == {*RETRIED, 507} - {504}
    assert all(issubclass(kind, StatusError) for kind in KINDS.values())


def test_the_paths_are_the_clients() -> None:
    asked = {path for path in DOCUMENT["paths"] if path.startswith(("/predictions", "/explanations"))}
    assert asked == {f"/{end}s/{{model}}{more}" for end in ("prediction", "explanation") for more in ("", "/{version}")}
    assert {"/v1/models", "/openapi.json"} <= DOCUMENT["paths"].keys()
