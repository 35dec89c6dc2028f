"""Requests to a handler as TorchServe makes them, and what it answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from PIL import Image

from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from tests.serving.fake_torchserve import Context
from tests.tensors import unpacked
from tests.wire.photos import encoded, noise_photo

HEIGHT, WIDTH = 40, 48
"""Of the photo of noise."""


def noise_png(seed: int = 0) -> bytes:
    """A photo of noise."""
    return encoded(noise_photo(HEIGHT, WIDTH, seed))


def base64_png(seed: int = 0) -> str:
    """The photo of noise as JSON holds it."""
    return base64.b64encode(noise_png(seed)).decode()


def coarse_pixels(seed: int = 0, height: int = 70, width: int = 50) -> np.ndarray:
    """Smooth noise, in which a segmenter of random weights finds something."""
    coarse = noise_photo(max(height // 10, 1), max(width // 10, 1), seed)
    return np.asarray(coarse.resize((width, height)))


def coarse_png(seed: int = 0, **size: int) -> bytes:
    """A photo of smooth noise."""
    return encoded(Image.fromarray(coarse_pixels(seed, **size)))


def explanation(options: str = "", accept: str = "application/json") -> dict[str, str]:
    """The headers of an explanation."""
    return {"explain": "True", "Accept": accept, "X-Explain-Options": options}


def prediction(accept: str = "*/*") -> dict[str, str]:
    """The headers of a prediction."""
    return {"Accept": accept}


def ask(handler: ClassifierHandler, *requests: tuple[dict[str, str], bytes]) -> tuple[list[bytes], Context]:
    """The answers to headers and photos in one batch, and the context with their statuses."""
    context = Context(headers=[headers for headers, _ in requests])
    return handler.handle([{"body": bytearray(body)} for _, body in requests], context), context


def ask_json(handler: ClassifierHandler, *bodies: dict[str, Any], accept: str = "application/json") -> list[Any]:
    """The answers to JSON requests in one batch; each request stands beside its photo."""
    context = Context(headers=[explanation("", accept) | {"Content-Type": "application/json"} for _ in bodies])
    rows = [{"body": {"image": base64_png(), **body}} for body in bodies]
    answers = handler.handle(rows, context)
    if accept != "application/json":
        return answers
    return [(context.statuses[index], json.loads(answer)) for index, answer in enumerate(answers)]


def explain_one(handler: ClassifierHandler, options: str, accept: str = "application/json") -> tuple[int, Any]:
    """Status and answer of one explanation."""
    (body,), context = ask(handler, (explanation(options, accept), noise_png()))
    status = context.statuses[0]
    if status != 200 or accept == "application/json":
        return status, json.loads(body)
    return status, unpacked(body) if accept == "application/gzip" else body


def answer_to(handler: SegmenterHandler, headers: dict[str, str], body: bytes, status: int = 200) -> bytes:
    """The body of the answer to one request, whose status is the wanted one."""
    context = Context(headers=[headers])
    (answer,) = handler.handle([{"body": bytearray(body)}], context)
    assert context.statuses[0] == status, answer[:500]
    return answer


def detected(handler: SegmenterHandler, options: str = "", body: bytes | None = None) -> list[dict[str, Any]]:
    """The detections of a prediction, by default of the photo of smooth noise."""
    headers = {"Accept": "application/json", "X-Explain-Options": options}
    return json.loads(answer_to(handler, headers, body or coarse_png()))["detections"]


def rle(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO runs, column by column, the zeros first."""
    flat = mask.T.flatten().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    runs = np.diff(np.concatenate([[0], edges]))
    return {"size": list(mask.shape), "counts": runs.tolist()}
