"""Encoding of results as gzip, safetensors, JSON or PNG.

A result is a mapping from names to tensors and plain values (numbers, text, lists and objects of them). :func:`select`
decides what goes out, :func:`encode` in which form. Equal results give equal bytes.

- ``application/gzip``: gzip of ``torch.save`` of a dict; loads with ``torch.load(…, weights_only=True)``.
- ``application/x-safetensors``: the tensors; the plain values as one JSON object under ``result`` in the metadata.
- ``application/json``: the plain values. JSON has no NaN or infinity: such a number becomes null, and its name is
  listed under ``non_finite``.
- ``image/png``: the picture that comes with the result; the texts among its ``info`` become the PNG's.

Floating-point tensors leave in float32, on the CPU, contiguous, each with storage of its own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import safetensors.torch
import torch
from isal import igzip
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from imagexplain.api.request import GZIP, JSON, PER_STEP, PNG, SAFETENSORS, Request
from imagexplain.errors import RequestError

#: What the original servers answered with, exactly.
LEGACY = (
    "integrated_grads",
    "integrated_directional_grads",
    "step_sizes",
    "intermediates",
    "output",
    "target_class",
)
#: What the original mask servers answered with, exactly.
LEGACY_MASKS = ("pred_masks",)
ONE_IMAGE = ("integrated_grads", "map", "output")
"""Tensors of an explanation that have a first axis for its image."""
SHARED = ("group_masks", "photo_label_map")
"""Tensors that explanations of several classes have in common."""
#: What only the summary for people carries, or an answer of which `Accept` wants it (`…; summary=true`).
SUMMARY = ("model", "target_label", "contrast_label", "top", "groups", "detections")

# Attributions are noise in their low bits, which no level compresses: 1 is as small as any (benchmarks/bench_wire.py).
GZIP_LEVEL = 1
_PNG_LEVEL = 1


@dataclass(frozen=True)
class Encoded:
    """A response body and its media type."""

    body: bytes
    media_type: str


def select(result: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The entries of an explanation's result that ``request`` asked for.

    Raises:
        KeyError: If the result lacks an entry that a legacy request is owed; a fault of the handler, not of the client.
    """
    if request.legacy:
        return {name: result[name] for name in (LEGACY if request.kind == "explanation" else LEGACY_MASKS)}
    hidden = {name for name in PER_STEP if name not in request.outputs}
    if request.accept != JSON and not request.summary:
        hidden.update(SUMMARY)
    return {name: value for name, value in result.items() if name not in hidden}


def several(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The explanations of several classes as one result, whose tensors have a first axis of classes.

    Their plain values are a list, ``explanations``. The groups' masks, which all have in common, stay as they are.
    """
    found: dict[str, Any] = {"model": results[0]["model"]} if "model" in results[0] else {}
    for name, value in results[0].items():
        if isinstance(value, Tensor):
            each = [result[name] for result in results]
            found[name] = value if name in SHARED else torch.cat(each) if name in ONE_IMAGE else torch.stack(each)
    plain = [{name: one for name, one in result.items() if not isinstance(one, Tensor)} for result in results]
    return found | {"explanations": plain}


def encode(
    result: Mapping[str, Any], media: str, *, picture: Image.Image | None = None, max_bytes: int | None = None
) -> Encoded:
    """A result in the form that was asked for.

    Args:
        result: Tensors and plain values by name.
        media: One of the media types of ``imagexplain.api.request.MEDIA``.
        picture: Picture for ``image/png``.
        max_bytes: Most bytes that TorchServe lets through; it kills a worker that answers with more.

    Raises:
        RequestError: 413 if the body would be larger than ``max_bytes``.
    """
    if media == GZIP:
        body = _gzip(result)
    elif media == SAFETENSORS:
        tensors = [value for value in result.values() if isinstance(value, Tensor)]
        least = sum(tensor.numel() * (4 if tensor.is_floating_point() else tensor.itemsize) for tensor in tensors)
        check_size(least, media, max_bytes)  # before anything is copied
        body = _safetensors(result)
    elif media == JSON:
        body = _json(result)
    elif media == PNG and picture is not None:
        body = _png(picture)
    else:
        raise ValueError(f"media: wanted a known media type (image/png with a picture), got {media!r}")
    check_size(len(body), media, max_bytes)
    return Encoded(body, media)


def check_size(size: int, media: str, max_bytes: int | None) -> None:
    """Refuse an answer of so many bytes if it is larger than ``max_bytes``. Raises RequestError 413."""
    if max_bytes is not None and size > max_bytes:
        given = f"this one takes {size:,} as {media}: ask for fewer steps, fewer outputs or a smaller photo"
        raise RequestError(413, "outputs", f"wanted an answer of at most {max_bytes:,} bytes, {given}")


def _gzip(result: Mapping[str, Any]) -> bytes:
    body = io.BytesIO()
    with igzip.IGzipFile(fileobj=body, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as file:
        torch.save({name: _plain(value) for name, value in result.items()}, file)
    return body.getvalue()


def _safetensors(result: Mapping[str, Any]) -> bytes:
    tensors = {name: _plain(value) for name, value in result.items() if isinstance(value, Tensor)}
    # One key only: safetensors writes several in an order that changes from call to call.
    return safetensors.torch.save(tensors, metadata={"result": _json(result).decode("utf-8")})


def _json(result: Mapping[str, Any]) -> bytes:
    values = {name: value for name, value in result.items() if not isinstance(value, Tensor)}
    non_finite = sorted(name for name, value in values.items() if not _finite(value))
    return msgspec.json.encode({**values, "non_finite": non_finite} if non_finite else values)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    told = PngInfo()
    for name, value in picture.info.items():
        if isinstance(name, str) and isinstance(value, str):
            told.add_text(name, value)
    picture.save(file, format="PNG", compress_level=_PNG_LEVEL, pnginfo=told)
    return file.getvalue()


def _plain(value: Any) -> Any:
    """A tensor without anything larger than itself, copied only if need be; any other value as it is."""
    if not isinstance(value, Tensor):
        return value
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    plain = value.detach().to(device="cpu", dtype=dtype).contiguous()
    return plain if plain.untyped_storage().nbytes() == plain.nbytes else plain.clone()


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list | tuple) else True
