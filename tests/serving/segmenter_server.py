"""A server whose segmenter answers what a test wants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.listening import listening


@contextmanager
def segmenter_server(status: int, body: bytes, seconds: float = 0) -> Iterator[tuple[str, list[Any]]]:
    """The address of a segmenter that gives this answer after some seconds, and the list of what it was asked."""
    asked: list[Any] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        sent = request.rfile.read(int(request.headers["Content-Length"]))
        asked.append((request.path, dict(request.headers), sent))
        time.sleep(seconds)
        request.send_response(status)
        request.end_headers()
        request.wfile.write(body)

    with listening(answer) as address:
        yield address, asked
