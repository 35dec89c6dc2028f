"""The Open Inference Protocol, KServe's V2 and Triton's, over HTTP: predictions of tensors, some of them in binary.

Sources: the protocol (github.com/kserve/open-inference-protocol, ``specification/protocol/inference_rest.md``) and its
extension for binary tensors (github.com/triton-inference-server/server, ``docs/protocol/extension_binary_data.md``).

The one input, of any name, is BYTES (N,), each the file of a photo, in JSON in base64; or (N, H, W, C) or
(N, C, H, W), pixels of 1 (grey), 3 (RGB) or 4 (RGBA) channels, of any of :data:`PIXELS`. The outputs are
:data:`OUTPUTS`. Parameters of a request are options of the service.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagexplain.api.request import JSON, SAFETENSORS
from imagexplain.api.response import check_size
from imagexplain.archive.spec import ClassifierSpec, ModelSpec
from imagexplain.errors import RequestError, listed, shown, unknown
from imagexplain.limits import Limits
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.protocols.instances import check_count, check_encoding, failed, file_request, json_fields
from imagexplain.serving.protocols.tensors import Answer, read
from imagexplain.serving.runtime import limits
from imagexplain.vision.decode import from_base64

HEADER_LENGTH = "inference-header-content-length"
"""Name of the header with the length of the JSON that stands before binary tensors, in lower case."""

BINARY = "application/octet-stream"
CHANNELS = (1, 3, 4)
PIXELS: Mapping[str, Any] = {
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""Types of pixels, which are whole numbers from 0 to 255 in all of them.

In any but UINT8 at least one is above 1: numbers from 0 to 1, or normalised ones, are not what photos hold, and a
model's preprocessing would make something else of them, without a word.
"""
FIELDS = ("inputs", "outputs", "id", "parameters", "model_name", "model_version")
"""Fields of a request. KServe's client sends the last two as well, but the path says which model is asked."""

BINARY_OUTPUT, BINARY_SIZE, BINARY_DATA = "binary_data_output", "binary_data_size", "binary_data"

Array = NDArray[Any]


class Input(msgspec.Struct):
    """A tensor of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] | None = None


class WantedOutput(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class Output:
    """A tensor of an answer.

    Attributes:
        datatype: Name of the protocol's for the type of its values.
        of: The values of one instance, of its answer.
    """

    datatype: str
    of: Callable[[Answer], Array]


def _ranked(field: str, kind: Any) -> Callable[[Answer], Array]:
    def values(answer: Answer) -> Array:
        ranked = msgspec.json.decode(answer.json)["predictions"]
        return np.array([one.get(field) for one in ranked], kind)

    return values


OUTPUTS: Mapping[str, Output] = {
    "scores": Output("FP32", lambda answer: answer.tensors["output"][0]),
    "label": Output("BYTES", _ranked("label", object)),
    "index": Output("INT64", _ranked("index", np.int64)),
    "probability": Output("FP64", _ranked("probability", np.float64)),
    "json": Output("BYTES", lambda answer: np.array([answer.json.decode()], object)),
}
"""Outputs by name: the scores of all classes, as a classifier's /predictions has them; the best classes; and the whole
answer in JSON, which all models have."""


def outputs_of(spec: ModelSpec) -> dict[str, Output]:
    """The outputs of a model, by name; only classifiers have scores, and only those of classes have probabilities."""
    if not isinstance(spec, ClassifierSpec):
        return {"json": OUTPUTS["json"]}
    values = spec.head.activation == "none"
    return {name: one for name, one in OUTPUTS.items() if not (values and name == "probability")}


def split(raw: RawRequest, spec: ModelSpec) -> list[RawRequest]:
    """A request for each photo of the input. Raises RequestError 400 or 413."""
    request, after = _parts(raw, spec)
    _wanted(request, spec)
    _id(request)
    tensor = _input(request)
    photos = _photos(tensor, after, limits(spec))
    accept = SAFETENSORS if isinstance(spec, ClassifierSpec) else JSON
    return [file_request(raw, photo, _options(request), accept) for photo in photos]


def join(raw: RawRequest, spec: ModelSpec, instances: Sequence[RawRequest], responses: Sequence[Response]) -> Response:
    """The outputs that the request asks for, of all instances; the first failure, if there is one.

    Raises:
        RequestError: 413 if they are too large.
    """
    request, _ = _parts(raw, spec)
    failure = failed(responses, _input(request).name)
    if failure is not None:
        return failure
    answers, known = [read(one) for one in responses], outputs_of(spec)
    told, binary = [], []
    for wanted, in_binary in _wanted(request, spec):
        values = np.stack([known[wanted].of(answer) for answer in answers])
        entry = {"name": wanted, "shape": list(values.shape), "datatype": known[wanted].datatype}
        if in_binary:
            binary.append(_binary(values))
            told.append({**entry, "parameters": {BINARY_SIZE: len(binary[-1])}})
        else:
            told.append({**entry, "data": values.ravel().tolist()})
    head = msgspec.json.encode(
        {"model_name": spec.name, "model_version": spec.version, "id": _id(request) or raw.id, "outputs": told}
    )
    check_size(len(head) + sum(map(len, binary)), BINARY, spec.limits.max_response_bytes)
    if not binary:
        return Response(200, JSON, head)
    return Response(200, BINARY, b"".join([head, *binary]), {"Inference-Header-Content-Length": str(len(head))})


def _parts(raw: RawRequest, spec: ModelSpec) -> tuple[Mapping[str, Any], bytes]:
    """The fields of the JSON, not yet decoded, and the binary tensors after it."""
    check_encoding(raw)
    length = raw.headers.get(HEADER_LENGTH)
    if length is None:
        return json_fields(raw, spec, FIELDS), b""
    body = next((value for value in raw.parts.values() if isinstance(value, bytes | bytearray)), b"")
    if not length.isdecimal() or int(length) > len(body):
        raise RequestError(400, HEADER_LENGTH, f"wanted at most the body's {len(body)} bytes, got {shown(length)}")
    # Its bytes are counted as a whole, and read as JSON without what is behind it.
    head = replace(raw, parts={"body": bytes(body[: int(length)])}, headers={**raw.headers, "content-type": JSON})
    return json_fields(head, spec, FIELDS), bytes(body[int(length) :])


def _input(request: Mapping[str, Any]) -> Input:
    """The tensor of photos. Raises RequestError 400."""
    inputs = _decoded(request, "inputs", list[Input], [])
    if len(inputs) != 1:
        names = listed(one.name for one in inputs)
        raise RequestError(400, "inputs", f"wanted one input, of photos, got {len(inputs)}: {names}")
    return inputs[0]


def _wanted(request: Mapping[str, Any], spec: ModelSpec) -> list[tuple[str, bool]]:
    """The names of the outputs that are asked for, with flags for those in binary. Raises RequestError 400."""
    known = outputs_of(spec)
    usual = _parameters(request).get(BINARY_OUTPUT, False)
    wanted = _decoded(request, "outputs", list[WantedOutput] | None, None) or []
    for output in wanted:
        field = f"outputs.{output.name}"
        if output.name not in known:
            raise RequestError(400, field, unknown("output", output.name, known))
        for name in output.parameters or {}:
            if name != BINARY_DATA:
                raise RequestError(400, f"{field}.{name}", unknown("parameter", name, (BINARY_DATA,)))
    default = [name for name in known if name != "json" or len(known) == 1]
    found = {one.name: (one.parameters or {}).get(BINARY_DATA, usual) for one in wanted} or dict.fromkeys(
        default, usual
    )
    for name, flag in found.items():
        if not isinstance(flag, bool):
            raise RequestError(400, f"outputs.{name}.{BINARY_DATA}", f"wanted true or false, got {shown(flag)}")
    return list(found.items())


def _options(request: Mapping[str, Any]) -> dict[str, str]:
    """The request's other parameters as options of a form."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in _parameters(request).items()
        if name != BINARY_OUTPUT
    }


def _parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] | None = _decoded(request, "parameters", dict[str, Any] | None, None)
    return found or {}


def _id(request: Mapping[str, Any]) -> str | None:
    found: str | None = _decoded(request, "id", str | None, None)
    return found


def _decoded(request: Mapping[str, Any], field: str, kind: Any, missing: Any) -> Any:
    if field not in request:
        return missing
    value = request[field]
    try:
        return msgspec.json.decode(value, type=kind) if isinstance(value, msgspec.Raw) else msgspec.convert(value, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, field, f"wanted another form: {error}") from error


def _photos(tensor: Input, after: bytes, bounds: Limits) -> list[bytes]:
    """The files of the photos in a tensor. Raises RequestError 400 or 413."""
    field, shape = tensor.name, tensor.shape
    if tensor.datatype != "BYTES" and tensor.datatype not in PIXELS:
        raise RequestError(400, field, unknown("datatype", tensor.datatype, ("BYTES", *PIXELS)))
    if not shape or min(shape) < 1:
        raise RequestError(400, field, f"wanted a shape of positive numbers, got {shown(shape)}")
    size = (tensor.parameters or {}).get(BINARY_SIZE)
    if size is not None and (type(size) is not int or size != len(after)):
        wanted = f"wanted {BINARY_SIZE} {len(after)}, of what is behind the JSON"
        raise RequestError(400, field, f"{wanted}, got {shown(size)}")
    if (size is None) == (tensor.data is None) or (size is None and after):
        raise RequestError(400, field, f"wanted data, or {BINARY_SIZE} and bytes behind the JSON, got both or none")
    if tensor.datatype == "BYTES":
        check_count(prod(shape), field)
        files = _elements(after, field) if size is not None else _texts(tensor.data, field)
        _check_number(len(files), prod(shape), field)
        return files
    pixels = _pixels(tensor, after if size is not None else None, bounds)
    return [_png(one) for one in pixels]


def _elements(data: bytes, field: str) -> list[bytes]:
    """The elements of a binary tensor of BYTES, each behind its length in four bytes, the least first."""
    found, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            wanted = "wanted each element behind its length in four bytes"
            raise RequestError(400, field, f"{wanted}, got one that ends after the {len(data)} bytes that there are")
        found.append(data[start + 4 : end])
        start = end
    return found


def _texts(data: Any, field: str) -> list[bytes]:
    """The elements of a tensor of BYTES in JSON, flat or nested, which are in base64."""
    flat = _flat(data)
    return [from_base64(one, f"{field}[{place}]") for place, one in enumerate(flat)]


def _pixels(tensor: Input, binary: bytes | None, bounds: Limits) -> Array:
    """(N, H, W, C) or, of one channel, (N, H, W) pixels."""
    field, shape = tensor.name, tensor.shape
    if len(shape) != 4 or not (shape[3] in CHANNELS or shape[1] in CHANNELS):
        wanted = "wanted the shape (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels"
        raise RequestError(400, field, f"{wanted}, got {shown(shape)}")
    check_count(shape[0], field)
    channels_last = shape[3] in CHANNELS
    height, width = shape[1:3] if channels_last else shape[2:4]
    if height * width > bounds.max_pixels:
        raise RequestError(413, field, f"wanted at most {bounds.max_pixels:,} pixels, got {height * width:,}")
    if binary is not None:
        kind = np.dtype(PIXELS[tensor.datatype]).newbyteorder("<")
        _check_number(len(binary) / kind.itemsize, prod(shape), field)
        values = np.frombuffer(binary, kind)
    else:
        flat = _flat(tensor.data)
        _check_number(len(flat), prod(shape), field)
        if not all(type(one) in (int, float) for one in flat):
            raise RequestError(400, field, "wanted whole numbers in 0..255")
        values = np.array(flat)
    pixels = _whole(values, tensor).reshape(shape)
    if not channels_last:
        pixels = pixels.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _whole(values: Array, tensor: Input) -> Array:
    """Values of any of :data:`PIXELS` as uint8. Raises RequestError 400 for what are no pixels."""
    pixels = values if values.dtype == np.uint8 else values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        fitting = (pixels >= 0) & (pixels <= 255) & (pixels == np.rint(pixels))
    if not fitting.all():
        first = pixels[~fitting][0]
        wanted = "wanted pixels, whole numbers in 0..255, which the model normalises itself"
        raise RequestError(400, tensor.name, f"{wanted}, got {first:g}")
    if tensor.datatype != "UINT8" and pixels.max() <= 1:
        wanted = f"wanted pixels in 0..255, one above 1 among them, as {tensor.datatype}; others as UINT8"
        raise RequestError(400, tensor.name, f"{wanted}, got {pixels.max():g} at most")
    return pixels.astype(np.uint8)


def _check_number(count: float, wanted: int, field: str) -> None:
    if count != wanted:
        raise RequestError(400, field, f"wanted the {wanted} values of its shape, got {count:g}")


def _flat(data: Any) -> list[Any]:
    """The values of nested lists, row by row; what is no list counts as one value."""
    level = data if isinstance(data, list) else [data]
    while any(isinstance(one, list) for one in level):
        level = [value for one in level for value in (one if isinstance(one, list) else [one])]
    return level


def _png(pixels: Array) -> bytes:
    """Pixels as a file that holds them unchanged."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _binary(values: Array) -> bytes:
    """A tensor as bytes, row by row; texts are elements behind their length."""
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    texts = [str(one).encode() for one in values.ravel()]
    return b"".join(len(one).to_bytes(4, "little") + one for one in texts)
