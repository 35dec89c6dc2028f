"""The OpenAPI document: valid, and held to what the parsers take and refuse."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from imagexplain.api import caption_request, request
from imagexplain.api.body import HEADER
from imagexplain.api.openapi import ANSWERS, EDGE_WORDS, document
from imagexplain.api.option_schemas import DESCRIPTIONS, Interface, Schema, json_options, text_options
from imagexplain.api.options import OWNERS
from imagexplain.api.request import Defaults, Kind
from imagexplain.attribution.registry import METHODS
from imagexplain.errors import WORDS, RequestError
from imagexplain.limits import Limits
from imagexplain.serving.interface import GENERIC
from tests.wire.photos import png

PHOTO, SMALL = (base64.b64encode(png(side, side)).decode() for side in (40, 2))
GRAPH: dict[str, Any] = {
    "objects": [{"box": [2, 2, 20, 20], "attributes": ["red"], "name": "star"}, {"box": [20, 10, 20, 24], "id": 1}],
    "relationships": [[0, 1, "left of"]],
    "phrase": None,
}
REGION: dict[str, Any] = {
    "objects": [{"object_id": 11, "name": "boy", "attributes": ["small"], "x": 2, "y": 1, "w": 9, "h": 9}],
    "relationships": [{"relationship_id": 1, "name": "on", "subject_id": 11, "object_id": 11}],
    "phrase": "a boy",
}
RUNS = {"size": [2, 2], "counts": [1, 2, 1]}
EXAMPLES: dict[str, list[Any]] = {
    "masks": [[RUNS], {"segmentation": RUNS, "label": "cat"}, [[True, False], [True, True]], [[[0, 1], [1, 0]]], []],
    "baseline_tensor": [[[[0.5, 1]], [[0, -1]], [[2, 3]]], [[[[0.5]], [[1]], [[2]]]]],
    "baseline_image": [PHOTO],
    "graph": [GRAPH, REGION],
    "graphs": [[GRAPH, REGION], {"first": GRAPH}],
    "features": [{"image": [1, 2], "regions": [[1, 2.5]], "boxes": [[0, 0, 4, 4]]}],
    "smooth": [{"samples": 3, "std": 0.5, "seed": 1, "statistic": "square"}, {}],
    "combine": [["blur_ig", "grad_cam"]],
    "outputs": [["output", "step_sizes"], ["photo_masks"], []],
    "absent": [[0], [0, 3]],
    "target_class": ["cat", 3, ["cat", 3]],
    "caption": ["a star", ["a star"], [None]],
    "words": ["all", "0, star", 3, [0, "star"]],
}
"""Valid values of the options that are more than a number or a word."""

DEEPER = ("masks", "baseline_image", "baseline_tensor", "graph", "graphs", "features", "caption", "words")
"""Options of which the schema does not say all that the parser checks: sizes, consistency, what a file holds."""

COMPANY: Mapping[str, Mapping[str, Any]] = {
    **{name: {owner: chosen} for name, (owner, chosen) in OWNERS.items()},
    "rows": {"segments": "grid", "columns": 1},
    "columns": {"segments": "grid", "rows": 1},
    "threshold": {"segments": "swin"},
    "fallback": {"segments": "swin"},
    "normalized": {"combine": ["blur_ig", "grad_cam"]},
    "outputs": {"pixels": True},
    "absent": {"segments": "grid"},
    "layer": {"method": "grad_cam"},
    "smooth": {"method": "gradient"},
}
"""What an option of a classifier's goes with."""

CAPTIONS_COMPANY: Mapping[str, Mapping[str, Any]] = {"n_best": {"beams": 20}, "baseline": {"map": True}}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 8)
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=9)
    | st.sampled_from(["slic", "grid", "mean", "black", "all", "logit", "left", "grad_cam", "rise", "output", PHOTO])
)


def companies(model: Interface, name: str, endpoint: Kind = "explanation") -> list[Mapping[str, Any]]:
    """The options beside which one has a meaning, for every role that it has."""
    if model.kind == "classifier" and endpoint == "prediction" and name != "absent":
        return [{**own, "absent": [0]} for own in companies(model, name)]
    if model.kind == "captioner":
        return [CAPTIONS_COMPANY.get(name, {})]
    library = {"quadrature": "rule"}.get(name, name)
    methods: list[Mapping[str, Any]] = [
        {"method": each} for each, method in METHODS.items() if library in method.options
    ]
    if name in DESCRIPTIONS and name != "score":
        own = {} if name == "threshold" and model.contract.thresholds else COMPANY.get(name, {})
        methods.append(own)
    return methods


def refusal(model: Interface, endpoint: Kind, fields: Mapping[str, Any], header: str = "") -> RequestError | None:
    """What the parser says against a request."""
    photo = PHOTO if model.kind == "captioner" else SMALL
    row = {"body": json.dumps({"image": photo, **fields}).encode()}
    headers = {HEADER: header, "accept": "application/json"}
    try:
        if model.kind == "captioner":
            assert isinstance(model.defaults, caption_request.CaptionDefaults)
            caption_request.parse(
                row, headers, kind=endpoint, limits=model.limits, captions=model.captions, defaults=model.defaults
            )
        else:
            assert isinstance(model.defaults, Defaults)
            contract = model.contract
            request.parse(row, headers, kind=endpoint, limits=model.limits, defaults=model.defaults, contract=contract)
    except RequestError as error:
        return error
    return None


def is_refused(
    model: Interface, endpoint: Kind, name: str, value: Any, company: Mapping[str, Any], *, as_text: bool = False
) -> bool:
    """Whether the parser refuses an option's value for itself, not for what stands beside it."""
    beside = {"graph": GRAPH} if model.kind == "captioner" and name not in ("graph", "graphs") else {}
    if as_text:
        error = refusal(model, endpoint, {**beside, **company}, urlencode({name: value}))
    else:
        error = refusal(model, endpoint, {**beside, **company, name: value})
    assert error is None or error.status < 500
    return error is not None and error.field.replace("[", ".").partition(".")[0] == name


def parts(value: Any) -> Iterator[Any]:
    """A value of JSON and all that is in it."""
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


def beside(schema: Schema, name: str, company: Mapping[str, Any]) -> Schema:
    """An option's schema beside a method, whose own bounds the document has apart."""
    own = METHODS_TOLD.get(company.get("method", ""), {})
    bounds = {"minimum": own.get("minima", {}), "maximum": own.get("maxima", {})}
    return {**schema, **{bound: values[name] for bound, values in bounds.items() if name in values}}


def check(model: Interface, endpoint: Kind, name: str, schema: Schema, value: Any) -> None:
    """A value that the schema calls invalid is refused, and one that it calls valid is not.

    But for whole numbers with a fraction of zeros, which JSON Schema calls integers, and the parser does not.
    """
    if any(isinstance(part, float) and part.is_integer() for part in parts(value)):
        return
    for company in companies(model, name, endpoint):
        valid = Draft202012Validator(beside(schema, name, company)).is_valid(value)
        refused = is_refused(model, endpoint, name, value, company)
        if valid and name in DEEPER:
            continue
        if value is None and name == "graph":
            continue  # nothing is given, where a graph is needed
        assert refused is not valid, (name, value, company, valid)


def near_all_bounds(model: Interface, endpoint: Kind, name: str, schema: Schema) -> Iterator[Any]:
    """Values at the edges of what a schema takes beside any method, and beyond them."""
    yield from near_bounds(schema)
    for company in companies(model, name, endpoint):
        if (own := beside(schema, name, company)) != schema:
            yield from near_bounds(own)


def near_bounds(schema: Schema) -> Iterator[Any]:
    """Values at the edges of what a schema takes, and beyond them."""
    for bound in ("minimum", "exclusiveMinimum", "maximum"):
        if bound in schema:
            at = schema[bound]
            yield from (at, at - 1, at + 1, math.nextafter(at, -math.inf), math.nextafter(at, math.inf), float(at))
    for bound in ("minLength", "maxLength"):
        for part in (schema, *schema.get("anyOf", ())):
            if bound in part:
                yield from ("x" * max(0, part[bound] + more) for more in (-1, 0, 1))
    yield from schema.get("enum", ())
    yield from (None, True, False, 0, 1, -1, 0.5, 2**70, 1e300, "", "0", "left", [], {}, ["left"], [0])


METHODS_TOLD = document(GENERIC, generic=True)["x-methods"]
ENDPOINTS: tuple[Kind, ...] = ("prediction", "explanation")
SCHEMAS = {(model.kind, endpoint): json_options(model, endpoint) for model in GENERIC for endpoint in ENDPOINTS}
CASES = [
    pytest.param(model, endpoint, id=f"{model.kind} {endpoint}")
    for model in GENERIC
    for endpoint in ENDPOINTS
    if model.options(endpoint)
]


def test_the_document_is_valid() -> None:
    validate(document(GENERIC, generic=True))
    validate(document([*GENERIC, Interface("places/2.0", "classifier", limits=Limits(max_steps=7))]))


@pytest.mark.parametrize(("model", "endpoint"), CASES)
def test_values_at_the_bounds(model: Interface, endpoint: Kind) -> None:
    for name, schema in SCHEMAS[model.kind, endpoint].items():
        for value in (*near_all_bounds(model, endpoint, name, schema), *EXAMPLES.get(name, ())):
            check(model, endpoint, name, schema, value)


@pytest.mark.parametrize(("model", "endpoint"), CASES)
def test_valid_examples_are_taken(model: Interface, endpoint: Kind) -> None:
    for name, schema in SCHEMAS[model.kind, endpoint].items():
        for value in EXAMPLES.get(name, ()):
            assert Draft202012Validator(schema).is_valid(value), (name, value)
            if name not in ("caption", "graphs"):
                company = companies(model, name, endpoint)[-1]
                assert not is_refused(model, endpoint, name, value, company), (name, value)


def alterations(example: Any, value: Any) -> Iterator[Any]:
    """Every value in which one part of an example is replaced by another value, left out, or joined by it."""
    yield value
    if isinstance(example, list):
        yield [*example, value]
        for place, part in enumerate(example):
            before, after = example[:place], example[place + 1 :]
            yield [*before, *after]
            yield from ([*before, new, *after] for new in alterations(part, value))
    if isinstance(example, dict):
        yield {**example, "more": value}
        for key, part in example.items():
            yield {name: one for name, one in example.items() if name != key}
            yield from ({**example, key: new} for new in alterations(part, value))


@pytest.mark.parametrize(("model", "endpoint"), CASES)
@settings(max_examples=50, deadline=None)
@given(value=SCALARS)
def test_the_schemas_and_the_parser_agree(model: Interface, endpoint: Kind, value: Any) -> None:
    for name, schema in SCHEMAS[model.kind, endpoint].items():
        check(model, endpoint, name, schema, value)


@pytest.mark.parametrize(("model", "endpoint"), CASES)
@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(value=SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["size", "box"]), SCALARS))
def test_the_schemas_and_the_parser_agree_within(model: Interface, endpoint: Kind, value: Any) -> None:
    for name, schema in SCHEMAS[model.kind, endpoint].items():
        if name in ("features", "baseline_tensor") and any(isinstance(part, bool) for part in parts(value)):
            continue  # NumPy takes truth values for numbers where they stand beside some
        for example in EXAMPLES.get(name, ()):
            for one in alterations(example, value):
                check(model, endpoint, name, schema, one)


def written(schema: Schema, value: Any) -> str | None:
    """A number, a word or a truth value as text; None for what has another form there."""
    if isinstance(value, str):
        return value if "enum" in schema and value else None
    if schema.get("type") == "boolean":
        return json.dumps(value) if isinstance(value, bool) else None
    if schema.get("type") not in ("integer", "number") or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if schema["type"] == "integer" and float(value).is_integer():
        return str(int(value)) if abs(value) < 10**19 else None
    return repr(float(value))


@pytest.mark.parametrize(("model", "endpoint"), CASES)
def test_options_as_text(model: Interface, endpoint: Kind) -> None:
    for name, schema in text_options(model, endpoint).items():
        for value in near_all_bounds(model, endpoint, name, schema):
            text = written(schema, value)
            if text is not None:
                for company in companies(model, name, endpoint):
                    valid = Draft202012Validator(beside(schema, name, company)).is_valid(value)
                    refused = is_refused(model, endpoint, name, text, company, as_text=True)
                    assert refused is not valid, (name, text, company)


@pytest.mark.parametrize(
    "text", ["output,step_sizes", " output , ", "", "output step_sizes", "out", ",,", "output,,out"]
)
def test_outputs_as_text(text: str) -> None:
    model = GENERIC[0]
    valid = Draft202012Validator(text_options(model, "explanation")["outputs"]).is_valid(text)
    assert is_refused(model, "explanation", "outputs", text, {"pixels": True}, as_text=True) is not valid


@pytest.mark.parametrize(("model", "endpoint"), CASES)
def test_the_document_names_what_the_parser_knows(model: Interface, endpoint: Kind) -> None:
    known = {name for each in GENERIC for name in each.options("explanation")}
    beside = {"graph": GRAPH} if model.kind == "captioner" else {}
    for name in (*known, "more"):
        error = refusal(model, endpoint, beside | {name: "?"})
        unknown = error is not None and error.message.startswith("unknown option ")
        assert unknown is (name not in SCHEMAS[model.kind, endpoint] and not model.ignores_others(endpoint)), name


def test_every_option_is_described() -> None:
    for schemas in SCHEMAS.values():
        for name, schema in schemas.items():
            assert len(schema["description"]) > 5, name


def test_paths_name_the_models() -> None:
    made = document([Interface("bit", "classifier"), Interface("places/2.0", "classifier")])
    wanted = [f"/{endpoint}s/{name}" for name in ("bit", "places/2.0") for endpoint in ("prediction", "explanation")]
    assert [path for path in made["paths"] if path.startswith(("/predictions/", "/explanations/"))] == wanted
    operations = [
        one["operationId"] for path in made["paths"].values() for one in path.values() if "operationId" in one
    ]
    assert len(operations) == len(set(operations))


def test_a_models_own_bounds_and_defaults() -> None:
    own = Interface("a", "classifier", limits=Limits(max_steps=7, max_groups=9), defaults=Defaults(steps=5))
    schemas = json_options(own, "explanation")
    assert (schemas["steps"]["maximum"], schemas["steps"]["default"]) == (7, 5)
    assert schemas["rows"]["maximum"] == 9 and "default" not in schemas["n_segments"]


def test_every_status_has_a_response() -> None:
    made = document([Interface("bit", "classifier")])
    responses = made["paths"]["/explanations/bit"]["post"]["responses"]
    assert set(map(int, responses)) == {200, *WORDS, *EDGE_WORDS}
    assert not set(WORDS) & set(EDGE_WORDS)
    for kind, answers in ANSWERS.items():
        model = next(each for each in GENERIC if each.kind == kind)
        for endpoint in answers:
            content = made_of(model)["paths"][f"/{endpoint}s/{kind}"]["put"]["responses"]["200"]["content"]
            assert tuple(content) == model.media(endpoint)


def made_of(model: Interface) -> dict[str, Any]:
    """The document of one model."""
    return document([model])
