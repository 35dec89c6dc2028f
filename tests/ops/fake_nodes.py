"""Nodes of Ray Serve without Ray: what its proxies, and the archives behind them, answer.

An application's name says what it answers. A node may fail in the place of its applications, and be down.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from imagexplain.errors import WORDS
from tests.ops.answering import Answering, Server

APPLICATIONS = (
    *("echo", "echo/2.0", "slow", "slower", "full", "died", "gone", "gone-late", "raised", "absent"),
    *(f"handler-{status}" for status in sorted(WORDS)),
)
"""Routes of the applications; `absent` is one that a proxy does not know yet."""


class Node:
    """The proxy of a node, on a port of the loopback.

    Attributes:
        port: Its port.
        seen: Paths that it was asked for, in their order.
        failure: Name of an application as which it answers whatever it is asked; None if it does as it should.
        draining: Flag for a node that is being taken away.
        unknown: Applications that it does not know yet.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failure: str | None = None
        self.draining = False
        self.unknown = {"absent"}
        self._connections: set[socket.socket] = set()
        self._server = self._listening(0)
        self.port: int = self._server.server_address[1]

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Die as a proxy that is killed: with all its connections."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # which has ended
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Be down within the block."""
        self.close()
        try:
            yield
        finally:
            self._server = self._listening(self.port)

    @contextmanager
    def failing(self, failure: str) -> Iterator[None]:
        """Fail so within the block."""
        self.failure = failure
        try:
            yield
        finally:
            self.failure = None

    def _listening(self, port: int) -> Server:
        node = self

        class Proxy(_Proxy):
            pass

        Proxy.node = node
        server = Server(("127.0.0.1", port), Proxy)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class _Proxy(Answering):
    node: Node

    def setup(self) -> None:
        super().setup()
        self.node._connections.add(self.connection)

    def finish(self) -> None:
        self.node._connections.discard(self.connection)
        super().finish()

    def get(self) -> None:
        if self.path != "/-/routes":
            self.send(404, f"Path '{self.path}' not found.".encode(), "text/plain; charset=utf-8")
        elif self.node.draining:
            self.send(503, b"This node is being drained.", "text/plain; charset=utf-8")
        else:
            routes = {f"/{name}": name for name in APPLICATIONS if name not in self.node.unknown}
            self.send(200, json.dumps(routes).encode())

    def post(self) -> None:
        body = self.body()
        self.answered_id = self.headers["X-Request-Id"]  # as Ray's proxy does
        self.node.seen.append(self.path)
        application, _, endpoint = self.path.removeprefix("/").rpartition("/")
        self._answer(self.node.failure or application, endpoint, body)

    def _answer(self, application: str, endpoint: str, body: bytes) -> None:
        if application not in APPLICATIONS or application == "absent":
            self.send(404, f"Path '{self.path}' not found.".encode(), "text/plain; charset=utf-8")
        elif application.startswith("slow"):
            time.sleep(4 if application == "slower" else 1)
            self._own(200, {"slow": True})
        elif application == "full":
            text = b"Request dropped due to backpressure (num_queued_requests=20, max_queued_requests=20)."
            self.send(503, text, "text/plain; charset=utf-8", Retry_After="5")
        elif application == "raised":  # an exception of the application's own, which Ray answers
            self.send(500, b"Internal Server Error", "text/plain; charset=utf-8")
        elif application == "died":  # uvicorn's answer, where Ray has none
            self.answered_id = None
            self.send(500, b"Internal Server Error", "text/plain; charset=utf-8")
        elif application.startswith("gone"):
            time.sleep(2.2 if application == "gone-late" else 0)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif application.startswith("handler-"):
            status = int(application.removeprefix("handler-"))
            self._own(status, {"code": status, "error": WORDS[status], "field": "steps", "message": "wanted more"})
        else:
            told = {"method": self.command, "path": self.path, "headers": dict(self.headers), "bytes": len(body)}
            self._own(200, {**told, "port": self.node.port})

    def _own(self, status: int, content: dict[str, Any]) -> None:
        """An answer of the archive's worker."""
        error = {"X_Explain_Error": json.dumps(content)} if status >= HTTPStatus.BAD_REQUEST else {}
        self.send(status, json.dumps(content).encode(), X_Correlation_Id=str(self.answered_id), **error)


def asked(nodes: Sequence[Node]) -> list[int]:
    """How many requests each node has had since this was asked last."""
    counts = [len(node.seen) for node in nodes]
    for node in nodes:
        node.seen.clear()
    return counts
