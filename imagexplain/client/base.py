"""The part that both clients share: their arguments, and the server of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from imagexplain.client.exchange import Retry
from imagexplain.client.local import find_local
from imagexplain.client.transport import Connection, Key

DEFAULT_URL = "http://127.0.0.1:8080"


class BaseClient:
    """A client's connection to a server.

    Args:
        url: Address of the server.
        key: Inference key, or a function that has the one of today.
        headers: Further headers of every request.
        timeout_s: Seconds without a byte after which an attempt is given up.
        connect_s: Seconds for a connection to be made.
        deadline_s: Seconds for a request with all its attempts and waits; None for any.
        retry: Patience with a server that is busy or gone.
        certificate: File of the certificate that a server is trusted by; those of this machine by default.
        connections: Connections at once, at most.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: Key = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        connect_s: float = 5.0,
        deadline_s: float | None = 900.0,
        retry: Retry | None = None,
        certificate: str | os.PathLike[str] | None = None,
        connections: int = 100,
    ) -> None:
        limits = (timeout_s, connect_s, deadline_s)
        self.connection = Connection(url, key, headers or {}, *limits, retry or Retry(), certificate, connections)
        self.known_models: tuple[str, ...] = ()
        self._open(self.connection.settings())

    def _open(self, settings: dict[str, Any]) -> None:
        """Make the pool of connections."""
        raise NotImplementedError

    @classmethod
    def local(cls, run: str | os.PathLike[str] | None = None, **settings: Any) -> Self:
        """The client of the server that runs on this machine, with its key of the day.

        Args:
            run: Directory of its state; `run` of the checkout by default.
            **settings: Arguments of the class.

        Raises:
            NoServerError: none runs.
        """
        found = find_local(run)
        client = cls(found.url, found.key, **settings)
        client.known_models = found.models
        return client

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.connection.url
