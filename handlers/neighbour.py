"""Another model of the same server: a segmenter, asked over its own endpoint for the segments of a photo.

A call over the loopback costs milliseconds beside the seconds that a segmenter takes, keeps one copy of its weights for
all who ask, and leaves its failures in its own process.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import requests

from handlers.wire.errors import RequestError, shown
from handlers.wire.image import Photo
from handlers.wire.limits import Limits
from handlers.wire.masks import PhotoMasks, parse_masks
from handlers.wire.options import SEGMENTS
from handlers.wire.request import Request

logger = logging.getLogger(__name__)

ADDRESS = "http://127.0.0.1:8080"
"""Where config.properties puts the inference endpoints; TorchServe's own variable says otherwise."""

KEY_FILE = "key_file.json"

SHARE = 0.5
"""Part of the time that a request has, within which its segments must be there: the explanation needs the rest."""

_GONE = (requests.ConnectionError, requests.Timeout)


class PhotoRefusedError(RequestError):
    """A segmenter's refusal of the photo itself, as too large or too narrow, for which a fallback stands in."""


def with_segments(
    request: Request, own: str, limits: Limits, ends: float, *, fresh: bool = False
) -> tuple[Request, PhotoMasks | None]:
    """The segments that another model finds, where the request asks for them; see :func:`segments_of`.

    Args:
        request: as parsed.
        own: name of the model that asks; its only worker would wait for itself.
        limits: bound the number of masks.
        ends: clock reading by which the whole request must have been answered.
        fresh: the segmenter is to remember nothing, either.

    Returns:
        The request, with its fallback as its segments where the other model does not answer; and the segments.

    Raises:
        RequestError: like :func:`segments_of`, for a failure without a fallback; 422 for the model itself.
    """
    asked = request.segments
    if asked is None or not asked.by_neighbour:
        return request, None
    if asked.name == own:
        raise RequestError(422, "segments", f"wanted the name of a segmenter, got {shown(own)}, which finds no masks")
    now = time.monotonic()
    try:
        found = segments_of(
            asked.name,
            request.photo,
            limits,
            threshold=asked.threshold,
            ends=now + SHARE * (ends - now),
            fresh=fresh,
        )
    except RequestError as refusal:
        if asked.fallback is None or not (refusal.status == 503 or isinstance(refusal, PhotoRefusedError)):
            raise
        logger.warning("%s instead of segments by %s: %s", asked.fallback, asked.name, refusal.message)
        return replace(request, segments=replace(asked, name=asked.fallback)), None
    return request, found


def segments_of(
    name: str, photo: Photo, limits: Limits, *, threshold: float | None, ends: float, fresh: bool = False
) -> PhotoMasks:
    """The instances that a segmenter of this server finds on a photo, labelled and in order of their scores.

    Args:
        name: the segmenter's.
        photo: sent as the file it came as, or as a PNG.
        limits: bound the number of masks.
        threshold: what scores must exceed, None for the segmenter's own.
        ends: reading of the monotonic clock by which it must have answered.
        fresh: it is to look anew.

    Raises:
        RequestError: 503 if it does not answer, not in time, or fails; 422 if there is no such segmenter.
    """
    left = ends - time.monotonic()
    if left <= 0:
        raise RequestError(503, "segments", f"no time is left to ask {name} for segments; try again")
    headers = {"Authorization": f"Bearer {_key()}", "Accept": "application/json"}
    if threshold is not None:
        headers["X-Explain-Options"] = f"threshold={threshold!r}"
    if fresh:
        headers["Cache-Control"] = "no-cache"
    try:
        answer = requests.post(
            f"{os.environ.get('TS_INFERENCE_ADDRESS', ADDRESS)}/predictions/{name}",
            data=photo.encoded or _png(photo),
            headers=headers,
            timeout=left,
        )
    except _GONE as error:
        reason = "did not answer in time" if isinstance(error, requests.Timeout) else "cannot be reached"
        raise RequestError(503, "segments", f"the segmenter {name} {reason}; try again, or allow a fallback") from None
    return _masks(name, answer, photo, limits)


def _masks(name: str, answer: requests.Response, photo: Photo, limits: Limits) -> PhotoMasks:
    if answer.status_code == 404:
        known = f"wanted {', '.join(SEGMENTS)} or a segmenter that is served here"
        raise RequestError(422, "segments", f"{known}, got {shown(name)}")
    content = _content(answer)
    if answer.status_code != 200:
        told = shown(content.get("message", answer.reason))
        message = f"the segmenter {name} answered {answer.status_code}: {told}"
        if answer.status_code == 413 or (answer.status_code == 422 and content.get("field") == "image"):
            raise PhotoRefusedError(422, "segments", message)
        raise RequestError(422 if answer.status_code == 422 else 503, "segments", message)
    if "detections" not in content:
        raise RequestError(422, "segments", f"wanted the name of a segmenter, got {shown(name)}, which finds no masks")
    return parse_masks(content["detections"][: limits.max_groups], photo.size, limits)


def _content(answer: requests.Response) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _png(photo: Photo) -> bytes:
    file = io.BytesIO()
    photo.image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _key() -> str:
    """The inference key, from where the server that started this worker keeps it: it changes with every start.

    Raises:
        RequestError: 503 if there is none to be read.
    """
    try:
        server = psutil.Process().parent()
        if server is None:
            raise OSError("the server has gone")
        return str(json.loads(Path(server.cwd(), KEY_FILE).read_text())["inference"]["key"])
    except (OSError, ValueError, KeyError, psutil.Error) as error:
        raise RequestError(503, "segments", f"this server's inference key cannot be read: {error}") from None
