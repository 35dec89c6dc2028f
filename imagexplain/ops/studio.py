"""The studio's own server, on the loopback alone: its files, the service's document, and TorchServe behind a key.

It is what the front door is to the studio, where there is no nginx: the same paths, errors and headers. A page of
another origin cannot use it: the `Host` must be one of its own, against names that are made to point here, and an
`Origin` too. The key is made anew at each start; TorchServe's own is put in here and goes to no browser.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote

from imagexplain.client.loopback import LOOPBACK, reachable, urlopen
from imagexplain.errors import WORDS
from imagexplain.ops.drain import DRAINING_FILE
from imagexplain.ops.refusals import (
    CONTENT_SECURITY_POLICY,
    MAX_BODY_BYTES,
    MODEL,
    NAMED_REFUSALS,
    TORCHSERVE_STATUSES,
    Refusal,
    by_status,
)
from imagexplain.ops.server import Server, ServerError, find
from imagexplain.ops.studio_relay import (
    CHUNK_BYTES,
    SILENCE_S,
    Body,
    ClientGoneError,
    Relayed,
    UpstreamError,
    UpstreamTimeoutError,
    relay,
)
from imagexplain.ops.supervisor_state import find_supervisor

PREFIX = "/studio/"
PORT = 8088
MAX_CONNECTIONS = 48
"""Connections at a time, each with a thread; a browser opens six."""
MAX_HEADER_BYTES = 6000
"""Bytes of all headers, as at the front door; TorchServe takes 8 kB."""
HEAD_S = 30.0
"""Seconds for a request's head, the silence before it included."""
BODY_S = 300.0
LINGER_S = 2.0
"""Seconds in which a refused body is read and thrown away: otherwise a reset would take the refusal from the client."""
READY_S = 3.0

MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
}
"""Media types of files; those of other suffixes are not served."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every answer."""

PASSED_ON = ("Content-Type", "Accept", "Cache-Control", "X-Explain-Options")
"""Headers of a request that TorchServe sees."""

_ASKED = re.compile(rf"/(predictions|explanations)/{MODEL}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RETRY_AFTER_S = {429: 1, 502: 5, 503: 5, 504: 30}
_FOREIGN_HOST = Refusal(
    403, "forbidden", "host", "wanted an address of the loopback, as the studio's command prints it"
)


@dataclass(frozen=True)
class Settings:
    """Contents and place of a server.

    Attributes:
        folder: Folder of the studio's files.
        run: Directory of the state of the TorchServe behind it.
        document: Function from a running server to the text of its OpenAPI document.
        key: Key that predictions and explanations want.
    """

    folder: Path
    run: Path
    document: Callable[[Server], bytes]
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24))


@dataclass
class _Documents:
    """The document of the server that runs, made when it is first asked for."""

    make: Callable[[Server], bytes]
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: tuple[Any, bytes] | None = None

    def of(self, server: Server) -> bytes:
        state = (server.store, server.models, server.archives)
        with self.lock:
            if self.made is None or self.made[0] != state:
                self.made = (state, self.make(server))
            return self.made[1]


class _Reader(io.RawIOBase):
    """Stream of what a client sends, until a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self.connection.settimeout(min(left, SILENCE_S))
        return self.connection.recv_into(buffer)


class StudioServer(ThreadingHTTPServer):
    """A server of the studio, which listens from its making on.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, settings: Settings, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.settings = settings
        self.documents = _Documents(settings.document)
        self.refusals = {refusal.status: refusal for refusal in reversed(by_status(MAX_BODY_BYTES))}
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def server_bind(self) -> None:
        """Take the port, without HTTPServer's look-up of a name for the address."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{LOOPBACK}:{self.server_port}"

    @property
    def address(self) -> str:
        """Address of the page, with the key in the part that browsers keep to themselves."""
        return f"{self.url}{PREFIX}#key={self.settings.key}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names by which it may be asked."""
        return tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def prepare(self) -> None:
        """Make the document of the server that runs, which takes seconds, before it is asked for."""
        server = find(self.settings.run)
        if server:
            self.documents.of(server)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or turn it away where there are too many."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except BaseException:
                self._free.release()
                raise
        else:
            request.settimeout(0)
            with suppress(OSError):
                request.sendall(self._turned_away())
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet of connections that broke off; the rest is a fault of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _turned_away(self) -> bytes:
        refusal = self.refusals[429]
        body = refusal.body.encode()
        lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Retry-After: 1"]
        lines.append(f"X-Request-Id: {_new_id()}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[StudioServer]:
    """A server that answers within the block."""
    server = StudioServer(settings, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names in addresses: none that is hidden, a link, or of an unknown type."""
    found = {}
    for parent, folders, files in os.walk(folder):  # which follows no links
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix in MEDIA and not path.is_symlink():
                found[path.relative_to(folder).as_posix()] = path
    return found


class _RefusedError(Exception):
    """An error to answer with."""

    def __init__(self, refusal: Refusal, **more: Any) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.more = more


class _Handler(BaseHTTPRequestHandler):
    server: StudioServer
    protocol_version = "HTTP/1.1"
    server_version = "imagexplain"
    sys_version = ""
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.reader = _Reader(self.connection)
        self.rfile = io.BufferedReader(self.reader, CHUNK_BYTES)
        self.id = ""

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        self.reader.deadline = time.monotonic() + HEAD_S
        self.unread, self.continues = 0, False
        super().handle_one_request()

    def handle_expect_100(self) -> bool:
        self.continues = True  # once the request's head is found to be in order
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error that the parser of HTTP found."""
        self.close_connection = True
        self.id = _new_id()
        if self.request_version in ("", "HTTP/0.9"):
            self.request_version = "HTTP/1.0"
        refusals = self.server.refusals
        if code == HTTPStatus.NOT_IMPLEMENTED:  # an unknown method
            self._refuse(_RefusedError(refusals[405], Allow="GET, HEAD, POST, PUT"))
        else:
            self._refuse(_RefusedError(refusals.get(code, refusals[400])))

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        given = self.headers.get("X-Request-Id", "")
        self.id = given if _ID.fullmatch(given) else _new_id()
        self.unread = self._length_told()
        try:
            self._check()
            self._route()
        except _RefusedError as refused:
            self._refuse(refused)
        except ClientGoneError:
            self.close_connection = True
        self._linger()

    def _check(self) -> None:
        """Refuse what a page of another origin sent, or what no client of ours sends."""
        refusals = self.server.refusals
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.path.startswith("/"):
            raise _RefusedError(refusals[400])
        if hosts[0].lower() not in self.server.hosts:
            raise _RefusedError(_FOREIGN_HOST)
        origins = self.headers.get_all("Origin", [])
        if origins and origins != [f"http://{hosts[0].lower()}"]:
            raise _RefusedError(NAMED_REFUSALS["foreign-origin"])
        site, mode = self.headers.get("Sec-Fetch-Site", "none"), self.headers.get("Sec-Fetch-Mode", "")
        opens = mode == "navigate" and self.command == "GET"  # a link to the page
        if site not in ("same-origin", "none") and not opens:
            raise _RefusedError(NAMED_REFUSALS["foreign-origin"])
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise _RefusedError(refusals[501 if self.headers["Transfer-Encoding"].lower() != "chunked" else 411])
        if len(self.path) > MAX_HEADER_BYTES:
            raise _RefusedError(refusals[414])
        if sum(len(name) + len(value) for name, value in self.headers.items()) > MAX_HEADER_BYTES:
            raise _RefusedError(refusals[431])

    def _route(self) -> None:
        path, _, query = self.path.partition("?")
        if _ASKED.fullmatch(path):
            self._allow("POST", "PUT")
            self._ask(path, query)
            return
        self._allow("GET", "HEAD")
        if path.startswith(PREFIX):
            self._file(unquote(path.removeprefix(PREFIX)) or "index.html")
        elif path == PREFIX.rstrip("/") or (path == "/" and "text/html" in self.headers.get("Accept", "")):
            self._send(302 if path == "/" else 301, b"", {"Location": PREFIX})
        elif path == "/":
            self._json({"status": "alive"})
        elif path == "/openapi.json":
            self._cached(self._document(), MEDIA[".json"])
        elif path in ("/livez", "/v2/health/live"):
            self._json({"live": True})
        elif path in ("/readyz", "/v2/health/ready"):
            self._readiness()
        else:
            raise _RefusedError(self.server.refusals[404])

    def _allow(self, *methods: str) -> None:
        if self.command not in methods:
            raise _RefusedError(self.server.refusals[405], Allow=", ".join(methods))

    def _file(self, name: str) -> None:
        path = files_of(self.server.settings.folder).get(name)
        try:
            content = path.read_bytes() if path else None
        except OSError:
            content = None
        if path is None or content is None:
            raise _RefusedError(self.server.refusals[404])
        self._cached(content, MEDIA[path.suffix])

    def _cached(self, content: bytes, media: str) -> None:
        """Send a file, or word that the client has it as it is."""
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"Content-Type": media, "Cache-Control": "no-cache", "ETag": tag}
        known = [each.strip().removeprefix("W/") for each in self.headers.get("If-None-Match", "").split(",")]
        if tag in known:
            self._send(304, None, headers)
        else:
            self._send(200, content, headers)

    def _running(self) -> Server:
        run = self.server.settings.run
        server = None if (run / DRAINING_FILE).exists() else find(run)
        if server is None:
            raise _RefusedError(self.server.refusals[503])
        return server

    def _document(self) -> bytes:
        try:
            return self.server.documents.of(self._running())
        except ValueError as error:  # an archive that cannot be read
            refusal = self.server.refusals[503]
            raise _RefusedError(Refusal(503, refusal.error, "models", str(error))) from None

    def _readiness(self) -> None:
        try:
            server = find(self.server.settings.run)
            states = _states(self.server.settings.run, server) if server else {}
        except (ServerError, OSError, HTTPException, ValueError):
            states = {}
        unready = [name for name, state in states.items() if state != "READY"]
        found = {"ready": bool(states) and not unready, "models": states, "unready": unready}
        if found["ready"]:
            self._json(found)
            return
        message = f"not ready: {', '.join(unready)}" if unready else "TorchServe does not run"
        refusal = Refusal(503, "busy", "models", message)
        body = json.dumps({**json.loads(refusal.body), **found}).encode()
        self._send(503, body, {"Content-Type": MEDIA[".json"], "Retry-After": str(_RETRY_AFTER_S[503])})

    def _ask(self, path: str, query: str) -> None:
        """Pass a request on to TorchServe."""
        refusals = self.server.refusals
        if not hmac.compare_digest(_key(self.headers).encode(), self.server.settings.key.encode()):
            raise _RefusedError(refusals[401], **{"WWW-Authenticate": "Bearer"})
        if query and self.headers.get("X-Explain-Options"):
            raise _RefusedError(NAMED_REFUSALS["options-twice"])
        length = self._length()
        server = self._running()
        try:
            key = server.headers()
        except ServerError:
            raise _RefusedError(refusals[503]) from None
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        headers |= {"Host": server.inference.removeprefix("http://"), "X-Request-Id": self.id, **key}
        if query:
            headers["X-Explain-Options"] = query
        if self.continues:
            self.send_response_only(100)
            self.end_headers()
        self.reader.deadline = time.monotonic() + BODY_S
        address = reachable(server.host), server.ports["inference"]
        body = Body(self.rfile, length)
        try:
            relayed = relay(address, path, headers, body, self.connection)
        except UpstreamError:
            raise _RefusedError(refusals[502]) from None
        except UpstreamTimeoutError:
            raise _RefusedError(refusals[504]) from None
        except ValueError:
            raise _RefusedError(refusals[400]) from None
        finally:
            self.unread, self.continues = body.left, False
        try:
            self._pass_back(relayed)
        finally:
            relayed.close()

    def _pass_back(self, relayed: Relayed) -> None:
        status, headers = relayed.response.status, relayed.response.headers
        length, chunks = relayed.response.length, relayed.chunks()
        own = headers.get("X-Explain-Error")
        if status >= 400 and not (own and status in WORDS):
            status = {**TORCHSERVE_STATUSES, 507: 503}.get(status, status)
            raise _RefusedError(self.server.refusals.get(status, self.server.refusals[502]))
        passed = {"Content-Type": headers.get("Content-Type", MEDIA[".json"])}
        if own:
            passed["X-Explain-Error"] = own
        if status in _RETRY_AFTER_S:
            passed["Retry-After"] = headers.get("Retry-After", str(_RETRY_AFTER_S[status]))
        passed["Cache-Control"] = "no-store"
        try:
            if length is None:
                self._send(status, b"".join(chunks), passed)
                return
            self._head(status, {**passed, "Content-Length": str(length)})
            for chunk in chunks:
                self.wfile.write(chunk)
        except UpstreamError:
            self.close_connection = True  # half of the answer is sent; its length tells

    def _length_told(self) -> int:
        given = self.headers.get("Content-Length", "0")
        return int(given) if re.fullmatch(r"[0-9]{1,18}", given) else 0

    def _length(self) -> int:
        """The bytes of the body, known before any is read."""
        given = self.headers.get_all("Content-Length", [])
        if not given:
            raise _RefusedError(self.server.refusals[411])
        if len(given) != 1 or not re.fullmatch(r"[0-9]{1,18}", given[0]):
            raise _RefusedError(self.server.refusals[400])
        length = int(given[0])
        if length > MAX_BODY_BYTES:
            raise _RefusedError(self.server.refusals[413])
        return length

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": MEDIA[".json"], "Cache-Control": "no-cache"})

    def _refuse(self, refused: _RefusedError) -> None:
        status = refused.refusal.status
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store", **refused.more}
        if status in _RETRY_AFTER_S:
            headers["Retry-After"] = str(_RETRY_AFTER_S[status])
        self._send(status, refused.refusal.body.encode(), headers)

    def _send(self, status: int, body: bytes | None, headers: Mapping[str, str]) -> None:
        self._head(status, headers if body is None else {**headers, "Content-Length": str(len(body))})
        if body and self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.connection.settimeout(SILENCE_S)
        if self.unread:
            self.close_connection = True
        self.send_response_only(status)
        for name, value in {**HEADERS, "X-Request-Id": self.id, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _linger(self) -> None:
        """Throw away what is left of a refused body, for a while."""
        if not self.unread or self.continues:
            return
        self.reader.deadline = time.monotonic() + LINGER_S
        left = min(self.unread, 2 * MAX_BODY_BYTES)
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (chunk := self.rfile.read1(min(left, CHUNK_BYTES))):
                left -= len(chunk)
        except OSError:
            pass


def _states(run: Path, server: Server) -> dict[str, str]:
    """The state of each model, by its address: as the supervisor tells it, else as TorchServe's management does."""
    supervisor = find_supervisor(run)
    if supervisor:
        try:
            with urlopen(f"{supervisor.exporter}/readyz", timeout=READY_S) as answer:
                found: dict[str, str] = json.load(answer)["models"]
        except HTTPError as error:
            found = json.load(error)["models"]
        return found
    return {model: "READY" if "READY" in server.workers(model) else "UNAVAILABLE" for model in server.models}


def _key(headers: Message) -> str:
    found = re.fullmatch(r"(?i:bearer) +([^ ]+) *", headers.get("Authorization", ""))
    return found[1] if found else ""


def _new_id() -> str:
    return secrets.token_hex(16)
