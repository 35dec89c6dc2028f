"""Headers of requests and of answers, whoever carries them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from imagexplain.serving.messages import RawRequest, Response

ERROR_HEADER = "X-Explain-Error"
"""Header of an error with its JSON in one line. By it a proxy tells ours from the engine's own, whose statuses are the
same, and can answer with it: a proxy that looks at statuses drops the body."""

ANSWERED_ID = "X-Correlation-Id"
"""Header of an answer with its request's id. TorchServe sets X-Request-Id itself, after the handler, to an id that it
makes for each request; it is the same where the client sent none."""


def joined(sent: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case; a name in two spellings, or given twice, is a list (RFC 9110, 5.3)."""
    headers: dict[str, str] = {}
    for name, value in sent:
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def headers_of(request: RawRequest, response: Response) -> dict[str, str]:
    """The headers of an answer, but for its media type: its request's id, the error of one that failed, and its own."""
    error = {ERROR_HEADER: _one_line(response.body)} if response.status >= 400 else {}
    return {**error, ANSWERED_ID: request.id, **response.headers}


def _one_line(error: bytes) -> str:
    """The JSON of an error in ASCII, as a header takes it."""
    return json.dumps(json.loads(error), separators=(",", ":"))
