"""A request as it is sent, and an answer as it came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Endpoint = Literal["predictions", "explanations"]

JSON = "application/json"
GZIP = "application/gzip"
PNG = "image/png"
SAFETENSORS = "application/x-safetensors"
WITH_SUMMARY = f"{SAFETENSORS}; summary=true"


@dataclass(frozen=True)
class Request:
    """A request to a server: a path below its address, headers and a body; without a body it reads."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def method(self) -> str:
        """POST with a body, GET without."""
        return "GET" if self.body is None else "POST"


@dataclass(frozen=True)
class Answer:
    """A successful answer, and the seconds from request to last byte.

    Attributes:
        body: Its bytes.
        media: Media type.
        seconds: Time of the attempt that succeeded.
        attempts: Number of times that the request was sent.
        request_id: Id by which the server's log knows the request; empty where it has none.
    """

    body: bytes
    media: str
    seconds: float
    attempts: int = 1
    request_id: str = ""

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)
