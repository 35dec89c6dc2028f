"""Answers that the studio's own server makes itself: refusals, JSON, and files that a client may keep."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imagexplain.ops.refusals import MAX_BODY_BYTES, Refusal, by_status

NO_CACHE = {"Cache-Control": "no-cache"}
RETRY_AFTER_S = {429: "1", 502: "5", 503: "5", 504: "30"}
"""Seconds after which a client may ask again, by the status."""
REFUSALS = {refusal.status: refusal for refusal in reversed(by_status(MAX_BODY_BYTES))}
"""Refusals by their status."""
REFUSALS[500] = Refusal(500, "internal", "server", "the studio's server failed, and has said why where it runs")


def failed(_: Request, error: Exception) -> Response:
    """The answer to a request whose handling raised an error: an HTTPException's status, or 500."""
    status = getattr(error, "status_code", 500)
    if status == 500:
        logging.getLogger(__name__).error("the studio's server failed", exc_info=error)
    return refused(REFUSALS.get(status, REFUSALS[400]), headers=getattr(error, "headers", None))


def refused(
    refusal: Refusal, more: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer of a refusal, with more in its body and its headers."""
    told = {"Cache-Control": "no-store", **(headers or {})}
    if refusal.status in RETRY_AFTER_S:
        told["Retry-After"] = RETRY_AFTER_S[refusal.status]
    return JSONResponse({**json.loads(refusal.body), **(more or {})}, refusal.status, told)


def json_response(value: Mapping[str, Any]) -> Response:
    """The answer of a value, which is asked for anew each time."""
    return JSONResponse(value, headers=NO_CACHE)


def cached(request: Request, content: bytes, media: str) -> Response:
    """A file, or word that the client has it as it is."""
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: it may be sent compressed
    headers = {"Content-Type": media, "ETag": tag, **NO_CACHE}
    known = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    return Response(status_code=304, headers=headers) if tag in known else Response(content, 200, headers)
