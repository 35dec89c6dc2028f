"""Requests and responses of a worker, whoever carries them: TorchServe, another engine, or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagexplain.api.request import Kind
from imagexplain.serving.request_id import request_id


@dataclass(frozen=True)
class RawRequest:
    """A request as it came, not yet parsed.

    Attributes:
        parts: The body under ``body`` or ``data``, or one entry for each part of a multipart form.
        headers: Names in lower case.
        kind: Endpoint that was called.
        id: Id by which the log knows it.
        queued: Seconds that it waited before this worker got it, where that is known.
    """

    parts: Mapping[str, Any]
    headers: Mapping[str, str]
    kind: Kind
    id: str = field(default_factory=request_id)
    queued: float | None = None

    @property
    def fresh(self) -> bool:
        """The client's wish for an answer without cached results (RFC 9111, 5.2.1.4)."""
        return "no-cache" in self.headers.get("cache-control", "").lower()

    @property
    def bytes(self) -> int:
        """Size of the body."""
        return sum(len(value) for value in self.parts.values() if isinstance(value, bytes | bytearray | str))


@dataclass(frozen=True)
class Response:
    """A status, a media type and a body, and headers beside those that every answer has."""

    status: int
    media_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
