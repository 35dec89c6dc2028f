"""Instances of a request in another service's words: how they are read, and become requests of this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from imagexplain.api.body import HEADER, body_fields, check_bytes
from imagexplain.api.request import JSON, SAFETENSORS
from imagexplain.archive.spec import ModelSpec
from imagexplain.errors import RequestError, listed, shown, unknown
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.protocols import MAX_INSTANCES
from imagexplain.serving.runtime import limits

TENSORS = f"{SAFETENSORS}; summary=true"
"""Form of an answer with tensors, and all that JSON has in its metadata."""

PHOTOS = ("b64", "image_bytes", "image", "data", "img_data")
"""Names under which an object that is an instance may hold its photo."""

_KEPT = ("cache-control", HEADER)
_ANYTHING = msgspec.json.Decoder(dict[str, msgspec.Raw])


def json_fields(raw: RawRequest, spec: ModelSpec, known: Sequence[str]) -> Mapping[str, Any]:
    """The fields of a request whose body is a JSON object, not yet decoded.

    Args:
        raw: The request.
        spec: Spec of the model, which has the limit of bytes.
        known: Names of the fields that the protocol has.

    Raises:
        RequestError: 400 for another body, or an unknown field; 413 for too many bytes.
    """
    check_encoding(raw)
    check_bytes(raw.parts, limits(spec))
    fields, parts = body_fields(raw.parts, raw.headers)
    if parts or isinstance(fields.get("image"), bytes):
        raise RequestError(400, "body", f"wanted a JSON object with {known[0]}, got another body")
    for name in fields:
        if name not in known:
            raise RequestError(400, name, unknown("field", name, known))
    return fields


def check_encoding(raw: RawRequest) -> None:
    """Refuse a compressed body, of which nothing could be read. Raises RequestError 415."""
    encoding = raw.headers.get("content-encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        raise RequestError(415, "content-encoding", f"wanted a body that is not compressed, got {shown(encoding)}")


def instances_of(fields: Mapping[str, Any], *names: str) -> tuple[str, list[msgspec.Raw]]:
    """The name under which a request has its instances, and each of them, not yet decoded.

    Raises:
        RequestError: 400 if there are none, or under two names; 413 if there are too many.
    """
    found = [name for name in names if name in fields]
    if len(found) != 1:
        raise RequestError(400, names[0], f"wanted a list of instances, got {'none' if not found else listed(found)}")
    try:
        instances = decoded(fields[found[0]], list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise RequestError(400, found[0], f"wanted a list of instances: {error}") from error
    if not instances:
        raise RequestError(400, found[0], "wanted at least one instance, got an empty list")
    check_count(len(instances), found[0])
    return found[0], instances


def check_count(count: int, field: str) -> None:
    """Refuse more instances than one request may have. Raises RequestError 413."""
    if count > MAX_INSTANCES:
        raise RequestError(413, field, f"wanted at most {MAX_INSTANCES} instances, got {count}")


def decoded(value: Any, kind: Any = Any) -> Any:
    """A value that may still be JSON. Raises msgspec.DecodeError where it is of another kind."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value, type=kind)
    return msgspec.convert(value, kind)


def photo_fields(instance: msgspec.Raw, field: str) -> dict[str, Any]:
    """An instance as the fields of a JSON request: its photo, and the options beside it.

    A list is a photo of nested lists. An object has the photo in base64 under one of :data:`PHOTOS`, as text or in an
    object with ``b64``, or as nested lists under ``img_data``.

    Raises:
        RequestError: 400 for anything else.
    """
    if bytes(instance).lstrip()[:1] == b"[":
        return {"img_data": whole_numbers(instance)}
    wanted = f'wanted {{"b64": …}}, an object with one of {", ".join(PHOTOS)}, or nested lists'
    try:
        fields: dict[str, Any] = _ANYTHING.decode(instance)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, field, f"{wanted}: {error}") from error
    names = [name for name in PHOTOS if name in fields]
    if len(names) != 1:
        raise RequestError(400, field, f"{wanted}, got {listed(names or fields)}")
    photo = fields.pop(names[0])
    inner = bytes(photo).lstrip()[:1]
    if inner == b"{":
        within = _ANYTHING.decode(photo)
        if list(within) != ["b64"]:
            raise RequestError(400, f"{field}.{names[0]}", f'wanted {{"b64": …}}, got {listed(within)}')
        photo = within["b64"]
    if inner == b"[":
        return {"img_data": whole_numbers(photo), **fields}
    return {"img_data" if names[0] == "img_data" else "image": photo, **fields}


def whole_numbers(value: msgspec.Raw) -> msgspec.Raw:
    """Nested lists whose numbers have no point, where they are whole: protocol buffers' values are all fractions."""
    if b"." not in bytes(value):
        return value
    try:
        numbers = np.array(msgspec.json.decode(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return value  # whose reader has the words for it
    if numbers.dtype.kind != "f" or not (np.abs(numbers) < 2**53).all() or (numbers != np.rint(numbers)).any():
        return value
    return msgspec.Raw(msgspec.json.encode(numbers.astype(np.int64).tolist()))


def with_options(fields: Mapping[str, Any], options: Mapping[str, Any], field: str) -> dict[str, Any]:
    """An instance's fields with the options that all have. Raises RequestError 400 for one that it has, too."""
    for name in options:
        if name in fields:
            raise RequestError(400, f"{field}.{name}", "wanted the option once, got it in parameters as well")
    return {**fields, **options}


def json_request(raw: RawRequest, fields: Mapping[str, Any], accept: str = JSON) -> RawRequest:
    """A request of this service, with these fields as JSON, of an instance of another one's."""
    return _request(raw, {"body": msgspec.json.encode(fields)}, {"content-type": JSON, "accept": accept})


def file_request(raw: RawRequest, photo: bytes, options: Mapping[str, str], accept: str = JSON) -> RawRequest:
    """A request of this service with the file of a photo, and options as text, of an instance of another one's."""
    return _request(raw, {"image": photo, **options}, {"accept": accept})


def _request(raw: RawRequest, parts: Mapping[str, Any], headers: Mapping[str, str]) -> RawRequest:
    kept = {name: raw.headers[name] for name in _KEPT if name in raw.headers}
    return replace(raw, parts=parts, headers={**kept, **headers})


def failed(responses: Sequence[Response], field: str) -> Response | None:
    """The first failure among the answers to the instances, which names its own; None where all have succeeded.

    It has been counted with the others, so it is an answer, and no error to be raised.

    Args:
        responses: Answers to the instances.
        field: Name under which the request has its instances.
    """
    for place, response in enumerate(responses):
        if response.status >= 400:
            told = msgspec.json.decode(response.body)
            error = RequestError(told["code"], f"{field}[{place}].{told['field']}", told["message"])
            return Response(error.status, JSON, error.body())
    return None


def object_of(value: Any, field: str) -> dict[str, Any]:
    """The fields of an object, not yet decoded; none where there is none. Raises RequestError 400 for anything else."""
    if value is None:
        return {}
    try:
        found: dict[str, Any] = decoded(value, dict[str, msgspec.Raw] | None) or {}
    except msgspec.DecodeError as error:
        raise RequestError(400, field, f"wanted an object, got {shown(bytes(value)[:60])}") from error
    return found
