"""The studio's own server, on the loopback alone: its files, the service's document, and TorchServe behind a key.

It is what the front door is to the studio, where there is no nginx: the same paths, errors and headers. A page of
another origin cannot use it: the `Host` must be one of its own, against names that are made to point here, and an
`Origin` too. The key is made anew at each start; TorchServe's own is put in here and goes to no browser.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagexplain.client.loopback import LOOPBACK
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
from imagexplain.ops.studio_relay import RelayedResponse, relay, upstream
from imagexplain.ops.supervisor_state import find_supervisor

PREFIX = "/studio/"
PORT = 8088
MAX_CONNECTIONS = 48
"""Connections at a time; a browser opens six."""
MAX_HEADER_BYTES = 6000
"""Bytes of the address and all headers, as at the front door; TorchServe takes 8 kB."""
READY_S = 3.0
END_S = 1
"""Seconds in which answers that have begun may come to their end when the server is ended."""
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
PASSED_ON = (b"content-type", b"accept", b"cache-control", b"x-explain-options", b"content-length")
"""Headers of a request that TorchServe sees."""

_NO_CACHE = {"Cache-Control": "no-cache"}
_RETRY_AFTER_S = {429: "1", 502: "5", 503: "5", 504: "30"}
_REFUSALS = {refusal.status: refusal for refusal in reversed(by_status(MAX_BODY_BYTES))}
_REFUSALS[500] = Refusal(500, "internal", "server", "the studio's server failed, and has said why where it runs")
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


class StudioServer:
    """A server of the studio, which takes connections from its making on, and answers them while it runs.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.settings = settings
        self.listener = socket.create_server((LOOPBACK, port))
        self.port: int = self.listener.getsockname()[1]
        self.answers = _Answers(settings)
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(
                self.answers.application([f"{name}:{self.port}" for name in (LOOPBACK, "localhost")]),
                loop="asyncio",
                http="h11",
                ws="none",
                log_config=None,
                log_level="critical",  # failures are logged by the application
                access_log=False,
                server_header=False,
                headers=list(HEADERS.items()),
                limit_concurrency=MAX_CONNECTIONS,
                h11_max_incomplete_event_size=4 * MAX_HEADER_BYTES,
                timeout_graceful_shutdown=END_S,
            )
        )

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def address(self) -> str:
        """Address of the page, with the key in the part that browsers keep to themselves."""
        return f"{self.url}{PREFIX}#key={self.settings.key}"

    def prepare(self) -> None:
        """Make the document of the server that runs, which takes seconds, before it is asked for."""
        self.answers.text(self.answers.running())

    def run(self) -> None:
        """Answer until a signal ends the process, or `uvicorn.should_exit` is set."""
        self.uvicorn.run([self.listener])


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[StudioServer]:
    """A server that answers within the block."""
    server = StudioServer(settings, port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.uvicorn.should_exit = True
        thread.join()


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


class _Model(StringConvertor):
    regex = MODEL


register_url_convertor("model", _Model())


@dataclass
class _Answers:
    """The application's functions; those that are no coroutines run in threads."""

    settings: Settings
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: tuple[Any, bytes] | None = None

    def application(self, hosts: list[str]) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
            async with upstream() as client:
                yield {"client": client}

        smaller = [Middleware(GZipMiddleware, minimum_size=1024)]
        asked = partial(Route, methods=["POST", "PUT"], max_body_size=MAX_BODY_BYTES)
        routes = [
            Route("/", self.root),
            Route(PREFIX.rstrip("/"), lambda _: RedirectResponse(PREFIX, 301)),
            Route(f"{PREFIX}{{name:path}}", self.file, middleware=smaller),
            Route("/openapi.json", self.document, middleware=smaller),
            *(Route(path, lambda _: _json({"live": True})) for path in ("/livez", "/v2/health/live")),
            *(Route(path, self.readiness) for path in ("/readyz", "/v2/health/ready")),
            *(asked(f"/{task}/{{model:model}}", partial(self.ask, task)) for task in ("predictions", "explanations")),
        ]
        guard = Middleware(_Guard, hosts=hosts)
        handlers: dict[Any, Any] = {HTTPException: _failed, Exception: _failed}
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)

    def running(self) -> Server:
        run = self.settings.run
        server = None if (run / DRAINING_FILE).exists() else find(run)
        if server is None:
            raise HTTPException(503)
        return server

    def text(self, server: Server) -> bytes:
        """The document of the server that runs, made when it is first asked for."""
        state = (server.store, server.models, server.archives)
        with self.lock:
            if self.made is None or self.made[0] != state:
                self.made = (state, self.settings.document(server))
            return self.made[1]

    def root(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(PREFIX, 302)
        return _json({"status": "alive"})

    def file(self, request: Request) -> Response:
        path = files_of(self.settings.folder).get(request.path_params["name"] or "index.html")
        if path is None:
            raise HTTPException(404)
        return _cached(request, path.read_bytes(), MEDIA[path.suffix])

    def document(self, request: Request) -> Response:
        try:
            return _cached(request, self.text(self.running()), MEDIA[".json"])
        except ValueError as error:  # an archive that cannot be read
            return _refused(Refusal(503, _REFUSALS[503].error, "models", str(error)))

    def readiness(self, _: Request) -> Response:
        run = self.settings.run
        try:
            server = find(run)
            states = _states(run, server) if server else {}
        except (ServerError, OSError, httpx.HTTPError, ValueError):
            states = {}
        unready = [name for name, state in states.items() if state != "READY"]
        found = {"ready": bool(states) and not unready, "models": states, "unready": unready}
        if found["ready"]:
            return _json(found)
        message = f"not ready: {', '.join(unready)}" if unready else "TorchServe does not run"
        return _refused(Refusal(503, "busy", "models", message), found)

    async def ask(self, task: str, request: Request) -> Response:
        """Pass a request on to TorchServe."""
        given, query = request.headers, request.scope["query_string"]
        key = re.fullmatch(r"(?i:bearer) +([^ ]+) *", given.get("authorization", ""))
        if key is None or not hmac.compare_digest(key[1].encode(), self.settings.key.encode()):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        if query and "x-explain-options" in given:
            return _refused(NAMED_REFUSALS["options-twice"])
        if ("content-length" in given) == ("transfer-encoding" in given):
            raise HTTPException(411)
        server = await run_in_threadpool(self.running)
        try:
            own = server.headers()["Authorization"]
        except ServerError:
            raise HTTPException(503) from None
        headers = [(name, value) for name, value in given.raw if name in PASSED_ON]
        headers += [(b"authorization", own.encode()), (b"x-request-id", request.state.id.encode())]
        if query:
            headers.append((b"x-explain-options", query))
        url = f"{server.inference}/{task}/{request.path_params['model']}"
        try:
            answer = await relay(request.state.client, request, url, headers)
        except ClientDisconnect:
            return Response()  # to nobody
        except httpx.TransportError as error:
            raise HTTPException(504 if isinstance(error, httpx.TimeoutException) else 502) from None
        return await _passed_back(answer)


async def _passed_back(answer: httpx.Response) -> Response:
    answer.headers.encoding = "latin-1"
    status, given = answer.status_code, answer.headers
    if status >= 400 and not ("X-Explain-Error" in given and status in WORDS):
        await answer.aclose()
        status = {**TORCHSERVE_STATUSES, 507: 503}.get(status, status)
        raise HTTPException(status if status in _REFUSALS else 502)
    headers = {"Content-Type": MEDIA[".json"], "Cache-Control": "no-store"}
    if status in _RETRY_AFTER_S:
        headers["Retry-After"] = _RETRY_AFTER_S[status]
    passed = ("Content-Type", "Content-Length", "Retry-After", "X-Explain-Error")
    return RelayedResponse(answer, headers | {name: given[name] for name in passed if name in given})


@dataclass
class _Guard:
    """The application behind a number for each request, and a refusal of what pages of other origins send."""

    app: ASGIApp
    hosts: list[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        request.state.id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(16)

        async def numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request.state.id
            await send(message)

        refusal = self._refusal(request)
        await (_refused(refusal) if refusal else self.app)(scope, receive, numbered)

    def _refusal(self, request: Request) -> Refusal | None:
        headers, host = request.headers, request.headers.get("host", "").lower()
        if host not in self.hosts:
            return _FOREIGN_HOST
        opens = headers.get("sec-fetch-mode") == "navigate" and request.method == "GET"  # a link to the page
        foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not opens
        if foreign or any(origin != f"http://{host}" for origin in headers.getlist("origin")):
            return NAMED_REFUSALS["foreign-origin"]
        size = len(request.scope["raw_path"]) + len(request.scope["query_string"])
        if size + sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADER_BYTES:
            return _REFUSALS[431]
        return _REFUSALS[413] if int(headers.get("content-length", 0)) > MAX_BODY_BYTES else None


def _failed(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status == 500:
        logging.getLogger(__name__).error("the studio's server failed", exc_info=error)
    return _refused(_REFUSALS.get(status, _REFUSALS[400]), headers=getattr(error, "headers", None))


def _refused(
    refusal: Refusal, more: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer of a refusal, with more in its body and its headers."""
    told = {"Cache-Control": "no-store", **(headers or {})}
    if refusal.status in _RETRY_AFTER_S:
        told["Retry-After"] = _RETRY_AFTER_S[refusal.status]
    return JSONResponse({**json.loads(refusal.body), **(more or {})}, refusal.status, told)


def _json(value: Mapping[str, Any]) -> Response:
    return JSONResponse(value, headers=_NO_CACHE)


def _cached(request: Request, content: bytes, media: str) -> Response:
    """A file, or word that the client has it as it is."""
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: it may be sent compressed
    headers = {"Content-Type": media, "ETag": tag, **_NO_CACHE}
    known = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    return Response(status_code=304, headers=headers) if tag in known else Response(content, 200, headers)


def _states(run: Path, server: Server) -> dict[str, str]:
    """The state of each model, by its address: as the supervisor tells it, else as TorchServe's management does."""
    supervisor = find_supervisor(run)
    if supervisor:
        answer = httpx.get(f"{supervisor.exporter}/readyz", timeout=READY_S, trust_env=False)
        found: dict[str, str] = answer.json()["models"]
        return found
    return {model: "READY" if "READY" in server.workers(model) else "UNAVAILABLE" for model in server.models}
