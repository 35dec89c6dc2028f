"""The id of a request, by which its line in the log is found, and the time at which it reached the server."""

from __future__ import annotations

import re
import uuid

ID_HEADER = "x-request-id"
"""Name of the header with a request's id, in lower case."""

START_HEADER = "x-request-start"
"""Name of the header with the time at which a proxy passed the request on, ``t=`` and seconds since 1970."""

MAX_QUEUE_SECONDS = 3600.0
"""Seconds that a request may have waited; another time is a client's invention or another clock's."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_START = re.compile(r"t=([0-9]{1,12}(?:\.[0-9]{1,9})?)")


def request_id(*candidates: str | None) -> str:
    """The first of several ids that is one, or a new one.

    Args:
        candidates: Ids, best first: one that was sent, one that a server made.

    Example:
        >>> from imagexplain.serving.request_id import request_id
        >>> request_id("a b", "job-7.2")
        'job-7.2'
    """
    return next((text for text in candidates if text and _ID.fullmatch(text)), None) or uuid.uuid4().hex


def queue_seconds(header: str | None, now: float) -> float | None:
    """Seconds that a request has waited, by the header's time; None where that says nothing.

    Args:
        header: Value of :data:`START_HEADER`, if it was sent.
        now: Seconds since 1970.

    Example:
        >>> from imagexplain.serving.request_id import queue_seconds
        >>> queue_seconds("t=100.25", 102.5)
        2.25
    """
    start = _START.fullmatch(header) if header else None
    waited = now - float(start[1]) if start else -1.0
    return waited if 0 <= waited <= MAX_QUEUE_SECONDS else None
