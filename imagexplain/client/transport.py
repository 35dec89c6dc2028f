"""The use of httpx by both clients: connections, time limits, and the meaning of its errors."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from imagexplain import __version__
from imagexplain.client.errors import (
    ClientError,
    ConnectionLostError,
    InputError,
    NoAnswerError,
    UnreachableError,
)
from imagexplain.client.exchange import Reply, Retry, out_of_time
from imagexplain.client.loopback import stays_here
from imagexplain.client.message import Request

Key = str | Callable[[], str] | None
"""A key, or a function that has the one of today."""


@dataclass(frozen=True)
class Connection:
    """A server's address, and how it is asked.

    Attributes:
        url: Address of the server, without the paths of its endpoints.
        key: Inference key.
        headers: Headers of every request.
        timeout_s: Seconds without a byte after which an attempt is given up.
        connect_s: Seconds for a connection to be made.
        deadline_s: Seconds for a request with all its attempts and waits; None for any.
        retry: Patience with a server that is busy or gone.
        certificate: File of the certificate that a server is trusted by; those of this machine by default.
        connections: Connections at once, at most.
    """

    url: str
    key: Key = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 600.0
    connect_s: float = 5.0
    deadline_s: float | None = 900.0
    retry: Retry = field(default_factory=Retry)
    certificate: str | os.PathLike[str] | None = None
    connections: int = 100

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InputError(f"url: wanted an address such as http://127.0.0.1:8080, got {self.url!r}")
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def settings(self) -> dict[str, Any]:
        """Arguments of httpx's clients. Nothing for this machine goes by a proxy, and no .netrc takes the key's place.

        Raises:
            InputError: a certificate that cannot be read.
        """
        verify: ssl.SSLContext | bool = self.url.startswith("https:")
        try:
            if self.certificate:
                verify = ssl.create_default_context(cafile=self.certificate)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"certificate: {self.certificate}: {error}") from None
        return {
            "trust_env": not stays_here(self.url),
            "auth": _no_password,
            "verify": verify,
            "limits": httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            "follow_redirects": False,
            "headers": {"User-Agent": f"imagexplain/{__version__}", "Accept-Encoding": "identity"},
        }

    def arguments(self, request: Request, left_s: float) -> dict[str, Any]:
        """Arguments of httpx's functions for an attempt."""
        key = self.key() if callable(self.key) else self.key
        own = {"Authorization": f"Bearer {key}"} if key else {}
        silence = max(0.001, min(self.timeout_s, left_s))
        return {
            "method": request.method,
            "url": f"{self.url}/{request.path}",
            "headers": {**own, **self.headers, **request.headers},
            "content": request.body,
            "timeout": httpx.Timeout(silence, connect=min(self.connect_s, silence)),
        }

    def error_of(self, request: Request, error: Exception) -> ClientError:
        """The error of a client that httpx's says."""
        told = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
            if any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
                return NoAnswerError(f"no answer from {self.url}: its certificate is not trusted: {told}")
            return UnreachableError(f"no answer from {self.url}: {told}")
        if isinstance(error, httpx.TimeoutException):
            return out_of_time(request)
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError | UnicodeError):
            return InputError(f"{request.path}: {told}")
        return ConnectionLostError(f"no answer from {self.url}: {told}")


FAILURES = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
"""Exceptions that an attempt of httpx's may end with."""


def reply_of(response: httpx.Response, body: bytes) -> Reply:
    """The whole of an answer that has been read."""
    return Reply(response.status_code, dict(response.headers), body, response.reason_phrase)


def time_over(now: float, ends: float) -> bool:
    """Tell whether the time for an attempt is over."""
    return not math.isinf(ends) and now > ends


def _no_password(request: httpx.Request) -> httpx.Request:
    """Leave a request as it is, so that nothing else authorises it."""
    return request


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
