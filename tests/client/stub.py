"""A server of a few lines, which answers as its test says and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy

from imagexplain.client.message import JSON, SAFETENSORS

STAR = {"label": "star", "index": 1, "score": 2.5, "probability": 0.75}
CLASSES = {
    "model": "bit",
    "score_kind": "logit",
    "predictions": [STAR],
}
EXPLAINED = {
    "model": "bit",
    "method": "integrated_gradients",
    "target_class": 1,
    "target_label": "star",
    "score_kind": "logit",
    "score": 2.5,
    "finite": True,
    "evaluations": 51,
    "top": [STAR],
    "baseline": "black",
    "baseline_score": 0.5,
    "residual": 0.25,
    "relative_residual": 0.125,
    "steps": 50,
    "quadrature": "gauss_legendre",
    "frame": {"photo": [2, 2], "input": [2, 2], "box": [0, 0, 2, 2]},
}


@dataclass(frozen=True)
class Said:
    """One answer, or what becomes of the connection in its place.

    Attributes:
        seconds: Time before it.
        reset: Flag for a connection that is reset without an answer.
        cut: Flag for an answer that ends in its middle.
    """

    status: int = 200
    body: bytes = b"{}"
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reset: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Asked:
    """A request as it came, the names of its headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stub:
    """A server's address, its answers in their order, and what it was asked; the last answer is repeated."""

    url: str
    answers: list[Said] = field(default_factory=lambda: [of(CLASSES)])
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer_to(self, asked: Asked) -> Said:
        """The answer to a request; may be replaced by a test."""
        with self.lock:
            self.asked.append(asked)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def of(value: Any, status: int = 200, **headers: str) -> Said:
    """An answer in JSON."""
    return Said(
        status, msgspec.json.encode(value), JSON, {name.replace("_", "-"): text for name, text in headers.items()}
    )


def refusal(status: int, field: str, message: str, **headers: str) -> Said:
    """An error in the service's form."""
    return of({"code": status, "error": "word", "field": field, "message": message}, status, **headers)


def tensors(result: Any = EXPLAINED) -> Said:
    """An explanation as safetensors."""
    arrays = {"integrated_grads": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)}
    return Said(200, safetensors.numpy.save(arrays, {"result": json.dumps(result)}), SAFETENSORS)


@contextmanager
def serving() -> Iterator[Stub]:
    """A stub that listens on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): text for name, text in self.headers.items()}
            said = stub.answer_to(Asked(self.command, self.path, headers, body))
            time.sleep(said.seconds)
            if said.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            with suppress(OSError):  # the client has left
                self.send(said)

        def send(self, said: Said) -> None:
            self.send_response(said.status)
            self.send_header("Content-Type", said.media)
            self.send_header("Content-Length", str(len(said.body) + said.cut))
            for name, text in said.headers.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(said.body)
            self.close_connection = said.cut or self.close_connection

        def do_POST(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = Stub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
