"""The service as an OpenAPI 3.1 document: endpoints, options, answers and errors, as the front door has them.

Options come from :mod:`imagexplain.api.option_schemas`, answers from the types of :mod:`imagexplain.api.schema`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from imagexplain import __version__
from imagexplain.api import schema
from imagexplain.api.body import HEADER, MAX_OPTIONS
from imagexplain.api.openapi_protocols import TYPES, protocol_paths
from imagexplain.api.option_relations import baselines, methods
from imagexplain.api.option_schemas import (
    BASE64,
    EXAMPLE_PHOTO,
    Interface,
    ModelKind,
    Schema,
    json_options,
    photo_list,
    text_options,
)
from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, Defaults, Kind
from imagexplain.attribution.registry import METHODS
from imagexplain.errors import WORDS

FORM = "multipart/form-data"
PHOTOS = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
"""Media types under which a photo is the whole body; it is known by its first bytes, whatever its type says."""

ANSWERS: Mapping[ModelKind, Mapping[Kind, tuple[type, ...]]] = {
    "classifier": {
        "prediction": (schema.ClassPrediction,),
        "explanation": (schema.PathExplanation, schema.MapExplanation, schema.Explanations),
    },
    "segmenter": {
        "prediction": (schema.InstancePrediction,),
        "explanation": (schema.PathExplanation, schema.MapExplanation, schema.Explanations),
    },
    "captioner": {"prediction": (schema.CaptionPrediction,), "explanation": (schema.CaptionExplanation,)},
}
"""Types of the answers in JSON."""

EDGE_WORDS: Mapping[int, str] = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    411: "length_required",
    414: "uri_too_long",
    429: "too_many_requests",
    431: "headers_too_large",
    501: "not_implemented",
    502: "bad_gateway",
    504: "timeout",
}
"""Words for the statuses that only the front door answers with; it has those of ``WORDS`` too."""

MEANINGS: Mapping[int, str] = {
    400: "Malformed.",
    401: "No key, or none that is in use.",
    403: "Not for this address, or for pages of this origin.",
    404: "No such model, or no such path.",
    405: "Another method is wanted, one of the header `Allow`.",
    406: "No such form of answer.",
    411: "The body has no length.",
    413: "Too large (bytes, pixels, steps, groups, draws, the answer, time), told before the work is done.",
    414: "The query is too long: send the options in the body.",
    415: "Unknown image format.",
    422: "Impossible for this model.",
    429: "Too many requests or connections of this client.",
    431: "The headers are too long: send the options in the body.",
    500: "A fault of the service, whose log says why.",
    501: "An encoding of the body that is not supported.",
    502: "The server, or its worker, ended before it had answered.",
    503: "Busy, not ready, or a segmenter that does not answer.",
    504: "The server did not answer in time.",
}

RETRIED = (429, 502, 503, 504)
"""Statuses that say when to come back."""

_SCHEMAS = "#/components/schemas/{name}"
_TENSORS = {
    GZIP: "gzip of torch.save of a dict of tensors and plain values: torch.load(…, weights_only=True) reads it.",
    SAFETENSORS: "Tensors; the plain values as JSON under `result` in the metadata.",
    PNG: "Picture; its own text says where the panel is, and all that is written in it.",
}
_REQUEST_ID = {
    "description": "Id of the request, by which its line in the logs is found.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_ERROR = {
    "description": "The error itself in one line of JSON, where the model's handler gave it; not the front door's own.",
    "schema": {"type": "string"},
}
_ABOUT: Mapping[Kind, tuple[str, str]] = {
    "prediction": ("predict", "What {model} says of a photo"),
    "explanation": ("explain", "What decided the answer of {model}"),
}


def document(models: Sequence[Interface], *, generic: bool = False) -> dict[str, Any]:
    """The OpenAPI document of a server.

    Args:
        models: Served models; where it is generic, one model of each kind, whose address is its kind's name.
        generic: Flag for paths with the parameter ``model``, each of which takes and answers what any of the kinds do.

    Example:
        >>> from imagexplain.api.openapi import document
        >>> from imagexplain.api.option_schemas import Interface
        >>> made = document([Interface("bit", "classifier")])
        >>> [path for path in made["paths"] if path.endswith("/bit")]
        ['/predictions/bit', '/explanations/bit']
    """
    schemas = _answers()
    for model in models:
        schemas |= _requests(model)
    paths: dict[str, Any] = {}
    if generic:
        for suffix in ("{model}", "{model}/{version}"):
            paths |= _paths(suffix, models)
    else:
        for model in models:
            paths |= _paths(model.address, [model])
    refused = {status: _reference("responses", _name(status)) for status in sorted(MEANINGS)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imagexplain",
            "version": __version__,
            "summary": "What image models say of a photo, and what decided it.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [
            *map(_tag, models),
            {"name": "protocols", "description": "Requests in the words of KServe, Triton and Vertex AI."},
            {"name": "server", "description": "The server itself."},
        ],
        "x-methods": methods(),
        "paths": paths | protocol_paths(refused) | _edge(),
        "components": {
            "schemas": schemas,
            "parameters": _parameters(),
            "headers": {"RequestId": _REQUEST_ID, "Error": _ERROR},
            "responses": {_name(status): _refusal(status) for status in sorted(MEANINGS)},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Key of a client, made by the operator."}
            },
        },
    }


def _tag(model: Interface) -> dict[str, Any]:
    """The tag of a model, with its kind, its classes and its methods as an extension."""
    found: dict[str, Any] = {"kind": model.kind}
    if model.labels:
        found["labels"] = list(model.labels)
    if isinstance(model.defaults, Defaults):
        names = sorted(METHODS) if model.methods is None else list(model.methods)
        found |= {"methods": names, "baselines": baselines(names, model.defaults)}
    return {"name": model.address, "description": model.description or model.kind, "x-model": found}


def _answers() -> dict[str, Schema]:
    """Schemas of all answers in JSON."""
    kinds = {each for answers in ANSWERS.values() for types in answers.values() for each in types}
    wanted = sorted(
        {*kinds, *TYPES, schema.Refusal, schema.Liveness, schema.Unreadiness, schema.Readiness},
        key=lambda one: one.__name__,
    )
    _, found = msgspec.json.schema_components(wanted, ref_template=_SCHEMAS)
    return found


def _requests(model: Interface) -> dict[str, Schema]:
    """Schemas of a model's requests: as JSON, as a form, and options as text alone."""
    found: dict[str, Schema] = {}
    for endpoint in _ABOUT:
        text = text_options(model, endpoint)
        part = {"description": "File of the photo.", "type": "string", "contentMediaType": "application/octet-stream"}
        found[_component(model, endpoint, "Form")] = {
            "type": "object",
            "properties": {"image": part, **text},
            "required": [] if model.kind == "captioner" else ["image"],
            "additionalProperties": model.ignores_others(endpoint),
        }
        found[_component(model, endpoint, "Json")] = _json_request(model, endpoint)
        if text:
            found[_component(model, endpoint, "Options")] = {
                "type": "object",
                "properties": text,
                "maxProperties": MAX_OPTIONS,
                "additionalProperties": model.ignores_others(endpoint),
            }
    return found


def _json_request(model: Interface, endpoint: Kind) -> Schema:
    image = {"description": "File of the photo in base64.", **BASE64, "examples": [EXAMPLE_PHOTO]}
    options = json_options(model, endpoint)
    if model.kind == "captioner":
        photo: dict[str, Schema] = {"image": image | {"type": ["string", "null"]}}
        needed = {"allOf": [_one_of("graph", "graphs"), _one_of("image", "features")]}
    else:
        photo = {"image": image, "img_data": photo_list(model)}
        needed = {"oneOf": _one_of("image", "img_data")["anyOf"]}
    others = model.ignores_others(endpoint)
    return {"type": "object", "properties": {**photo, **options}, **needed, "additionalProperties": others}


def _one_of(*names: str) -> Schema:
    return {"anyOf": [{"required": [name]} for name in names]}


def _paths(address: str, models: Sequence[Interface]) -> dict[str, Any]:
    """The two paths of a model, or of whatever model the address stands for."""
    return {f"/{endpoint}s/{address}": _path(address, endpoint, models) for endpoint in _ABOUT}


def _path(address: str, endpoint: Kind, models: Sequence[Interface]) -> dict[str, Any]:
    verb, about = _ABOUT[endpoint]
    name = verb + "_" + address.replace("/", "_").replace("{", "").replace("}", "")
    operation = {
        "tags": [model.address for model in models],
        "summary": about.format(model=address if len(models) == 1 else "a model"),
        "description": _told(endpoint, models),
        "requestBody": {"required": True, "content": _bodies(endpoint, models)},
        "responses": {
            "200": {
                "description": "The answer, in the form that `Accept` asks for; the first is the default.",
                "headers": {"X-Request-Id": _reference("headers", "RequestId")},
                "content": _contents(endpoint, models),
            },
            **{str(status): _reference("responses", _name(status)) for status in sorted(MEANINGS)},
        },
    }
    shared = [
        *(_reference("parameters", name) for name in ("Model", "Version") if f"{{{name.lower()}}}" in address),
        *_options(endpoint, models),
        _reference("parameters", "CacheControl"),
        _reference("parameters", "RequestId"),
    ]
    methods = {method: {"operationId": f"{name}{end}"} | operation for method, end in (("post", ""), ("put", "_put"))}
    return {"parameters": shared, **methods}


def _told(endpoint: Kind, models: Sequence[Interface]) -> str:
    lines = ["The photo is the body itself, `image` in JSON (base64) or in a form."]
    if any(model.kind != "captioner" for model in models):
        original = "explanations of classifiers, predictions of segmenters"
        lines.append(f"`img_data` alone, of {original}, has the original servers' answer as gzip.")
    lines.append(
        "Options stand beside it, or as text in the query or in `X-Explain-Options`, but not in both, and none twice."
    )
    if all(model.ignores_others(endpoint) for model in models):
        lines.append("Others than these are ignored.")
    return " ".join(lines)


def _options(endpoint: Kind, models: Sequence[Interface]) -> list[dict[str, Any]]:
    """The parameters that hold options, where there are any."""
    named = [_component(model, endpoint, "Options") for model in models if model.options(endpoint)]
    if not named:
        return []
    told = {"description": "Options as text, form-encoded.", "required": False}
    options = _any_of(named)
    return [
        {
            "name": HEADER.title(),
            "in": "header",
            **told,
            "content": {"application/x-www-form-urlencoded": {"schema": options}},
        },
        {"name": "options", "in": "query", **told, "style": "form", "explode": True, "schema": options},
    ]


def _bodies(endpoint: Kind, models: Sequence[Interface]) -> dict[str, Any]:
    photo = {"schema": {"description": "File of the photo."}}
    photos = dict.fromkeys(PHOTOS, photo) if any(model.kind != "captioner" for model in models) else {}
    return {
        **photos,
        JSON: {"schema": _any_of(_component(model, endpoint, "Json") for model in models)},
        FORM: {
            "schema": _any_of(_component(model, endpoint, "Form") for model in models),
            "encoding": {"image": {"contentType": ", ".join(PHOTOS)}},
        },
    }


def _contents(endpoint: Kind, models: Sequence[Interface]) -> dict[str, Any]:
    """The forms of an answer, the default first."""
    types = dict.fromkeys(each.__name__ for model in models for each in ANSWERS[model.kind][endpoint])
    media = dict.fromkeys(each for model in models for each in model.media(endpoint))
    return {each: {"schema": _any_of(types) if each == JSON else {"description": _TENSORS[each]}} for each in media}


def _parameters() -> dict[str, Any]:
    """Parameters that several paths share. `Accept` is none of them: OpenAPI has it in the forms of the answers."""
    name = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$"}
    version = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$"}
    fresh = "`no-cache` computes anew what is cached."
    return {
        "Model": {
            "name": "model",
            "in": "path",
            "required": True,
            "description": "Name of a served model.",
            "schema": name,
        },
        "Version": {
            "name": "version",
            "in": "path",
            "required": True,
            "description": "One of its versions.",
            "schema": version,
        },
        "CacheControl": {
            "name": "Cache-Control",
            "in": "header",
            "description": fresh,
            "schema": {"type": "string", "examples": ["no-cache"]},
        },
        "RequestId": {
            "name": "X-Request-Id",
            "in": "header",
            "description": "Id of the request: taken where it is one (1 to 64 of A-Za-z0-9._-), else made.",
            "schema": {"type": "string"},
        },
    }


def _refusal(status: int) -> dict[str, Any]:
    """A response of an error."""
    word = {**WORDS, **EDGE_WORDS}[status]
    own = {"properties": {"code": {"const": status}, "error": {"const": word}}}
    headers = {"X-Request-Id": _reference("headers", "RequestId"), "X-Explain-Error": _reference("headers", "Error")}
    if status in RETRIED:
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = {"schema": {"const": "Bearer"}}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = {"schema": {"type": "string"}}
    return {
        "description": MEANINGS[status],
        "headers": headers,
        "content": {JSON: {"schema": {"allOf": [_schema("Refusal"), own]}}},
    }


def _edge() -> dict[str, Any]:
    """The paths of the front door itself, which need no key."""

    def reading(name: str, summary: str, responses: Mapping[str, Any]) -> dict[str, Any]:
        refused = {str(status): _reference("responses", _name(status)) for status in (405, 429)}
        own = {"operationId": name, "tags": ["server"], "summary": summary, "security": []}
        return {"get": own | {"responses": {**responses, **refused}}}

    def told(text: str, name: str) -> dict[str, Any]:
        return {"description": text, "content": {JSON: {"schema": _schema(name)}}}

    forbidden = {str(status): _reference("responses", _name(status)) for status in (403, 502, 504)}
    text = {"text/plain": {"schema": {"type": "string"}}}
    metrics = {"200": {"description": "Metrics as Prometheus reads them.", "content": text}, **forbidden}
    own = {"200": {"description": "This document.", "content": {JSON: {"schema": {"type": "object"}}}}}
    missing = {"404": _reference("responses", _name(404))}
    ready = {"200": told("All are.", "Readiness"), "503": told("Some are not, or none runs.", "Unreadiness")}
    return {
        "/livez": reading("livez", "Whether the front door is there", {"200": told("It is.", "Liveness")}),
        "/readyz": reading("readyz", "Whether every model has a worker that is ready", ready),
        "/v2/health/live": reading("kserve_v2_live", "As /livez", {"200": told("It is.", "Liveness")}),
        "/v2/health/ready": reading("kserve_v2_ready_all", "As /readyz", ready),
        "/metrics": reading("metrics", "Metrics, for the addresses that may read them", metrics),
        "/openapi.json": reading("openapi", "This document", own | missing),
    }


def _component(model: Interface, endpoint: Kind, what: str) -> str:
    return f"{model.address.replace('/', '-')}.{endpoint.title()}{what}"


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "")


def _any_of(names: Iterable[str]) -> Schema:
    found = [_schema(name) for name in names]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _schema(name: str) -> Schema:
    return {"$ref": _SCHEMAS.format(name=name)}


def _reference(part: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{part}/{name}"}
