"""The studio's files and a service of handlers in this process, which can be told to be slow or to refuse."""

from __future__ import annotations

import json
import mimetypes
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from imagexplain.checkout import ROOT
from imagexplain.ops.refusals import CONTENT_SECURITY_POLICY
from tests.serving.fake_torchserve import Context

STUDIO = ROOT / "studio"
KEY = "key-of-the-test"


@dataclass
class Mood:
    """The service's way of answering explanations.

    Attributes:
        seconds: Time for which an answer is held back.
        refusal: Status, headers and body that stand for every answer.
    """

    seconds: float = 0
    refusal: tuple[int, dict[str, str], dict[str, Any]] | None = None


@dataclass
class Seen:
    """A request that came in."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeService(ThreadingHTTPServer):
    """A server on a free port of the loopback.

    Attributes:
        mood: Way of answering.
        seen: Requests so far.
    """

    daemon_threads = True

    def __init__(self, handlers: Mapping[str, Any], document: Mapping[str, Any], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Asked)
        self.handlers = handlers
        self.locks = {name: threading.Lock() for name in handlers}
        self.document = document
        self.mood = Mood()
        self.seen: list[Seen] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """The page's address, with the key in its fragment."""
        return f"http://127.0.0.1:{self.server_port}/studio/#key={KEY}"


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def service(self) -> FakeService:
        return cast("FakeService", self.server)

    def do_GET(self) -> None:
        self.service.seen.append(Seen(self.path, dict(self.headers)))
        path = self.path.split("?")[0]
        if path == "/openapi.json":
            self._answer(200, json.dumps(self.service.document).encode(), "application/json")
            return
        file = (STUDIO / path.removeprefix("/studio/")).resolve()
        file = file / "index.html" if file == STUDIO else file
        if path.startswith("/studio/") and file.is_relative_to(STUDIO) and file.is_file():
            self._answer(200, file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        else:
            self._refuse(404, {}, {"code": 404, "error": "not_found", "field": "path", "message": f"no file {path}"})

    def do_POST(self) -> None:
        self.service.seen.append(Seen(self.path, dict(self.headers)))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, endpoint, name = self.path.split("/", 2)
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            wanted = "wanted the key in Authorization: Bearer"
            self._refuse(401, {}, {"code": 401, "error": "unauthorized", "field": "Authorization", "message": wanted})
            return
        if endpoint == "explanations":
            time.sleep(self.service.mood.seconds)
            if self.service.mood.refusal:
                self._refuse(*self.service.mood.refusal)
                return
        explains = {"explain": "True"} if endpoint == "explanations" else {}
        context = Context(headers=[dict(self.headers) | explains])
        with self.service.locks[name]:
            (answer,) = self.service.handlers[name].handle([_row(body, self.headers)], context)
        self._answer(context.statuses[0], bytes(answer), context.types[0], context.answered.get(0, {}))

    def _refuse(self, status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(body).encode(), "application/json", headers)

    def _answer(self, status: int, body: bytes, media: str, headers: Mapping[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the page has stopped waiting

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""


def _row(body: bytes, headers: Message) -> dict[str, Any]:
    """A request as TorchServe hands it on: the body, or the parts of a form by name."""
    media = headers.get("Content-Type", "")
    if not media.startswith("multipart/form-data"):
        return {"body": bytearray(body)}
    form = BytesParser().parsebytes(b"Content-Type: " + media.encode() + b"\r\n\r\n" + body)
    parts = cast("list[Message]", form.get_payload())
    return {
        str(part.get_param("name", header="content-disposition")): bytearray(
            cast("bytes", part.get_payload(decode=True))
        )
        for part in parts
    }
