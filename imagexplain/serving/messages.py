"""Requests and responses of a worker, whoever carries them: TorchServe, another engine, or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagexplain.api.request import Kind


@dataclass(frozen=True)
class RawRequest:
    """A request as it came, not yet parsed.

    Attributes:
        parts: The body under ``body`` or ``data``, or one entry for each part of a multipart form.
        headers: Names in lower case.
        kind: Endpoint that was called.
    """

    parts: Mapping[str, Any]
    headers: Mapping[str, str]
    kind: Kind

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
    """A status, a media type and a body."""

    status: int
    media_type: str
    body: bytes
