"""The application of the studio's own server: files, the service's document, readiness, and TorchServe behind a key."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from imagexplain.errors import WORDS
from imagexplain.ops.drain import DRAINING_FILE
from imagexplain.ops.refusals import MAX_BODY_BYTES, MODEL, NAMED_REFUSALS, TORCHSERVE_STATUSES, Refusal
from imagexplain.ops.server import Server, ServerError, find
from imagexplain.ops.studio_guard import Guard
from imagexplain.ops.studio_relay import RelayedResponse, relay, upstream
from imagexplain.ops.studio_responses import REFUSALS, RETRY_AFTER_S, cached, failed, json_response, refused
from imagexplain.ops.supervisor_state import find_supervisor

PREFIX = "/studio/"
"""Path of the page and its files."""
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
PASSED_ON = (b"content-type", b"accept", b"cache-control", b"x-explain-options", b"content-length")
"""Headers of a request that TorchServe sees."""


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
class Application:
    """The functions of the paths; those that are no coroutines run in threads."""

    settings: Settings
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: tuple[Any, bytes] | None = None

    def starlette(self, hosts: list[str]) -> Starlette:
        """The application, for requests to one of these hosts."""

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
            *(Route(path, lambda _: json_response({"live": True})) for path in ("/livez", "/v2/health/live")),
            *(Route(path, self.readiness) for path in ("/readyz", "/v2/health/ready")),
            *(asked(f"/{task}/{{model:model}}", partial(self.ask, task)) for task in ("predictions", "explanations")),
        ]
        guard = Middleware(Guard, hosts=hosts)
        handlers: dict[Any, Any] = {HTTPException: failed, Exception: failed}
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)

    def running(self) -> Server:
        """The server that runs and takes requests. Raises HTTPException 503 where there is none."""
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
        """Lead browsers to the page, and tell others that it is alive."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(PREFIX, 302)
        return json_response({"status": "alive"})

    def file(self, request: Request) -> Response:
        """A file of the studio."""
        path = files_of(self.settings.folder).get(request.path_params["name"] or "index.html")
        if path is None:
            raise HTTPException(404)
        return cached(request, path.read_bytes(), MEDIA[path.suffix])

    def document(self, request: Request) -> Response:
        """The OpenAPI document of the server that runs."""
        try:
            return cached(request, self.text(self.running()), MEDIA[".json"])
        except ValueError as error:  # an archive that cannot be read
            return refused(Refusal(503, REFUSALS[503].error, "models", str(error)))

    def readiness(self, _: Request) -> Response:
        """The state of every model, with 503 unless all are READY."""
        run = self.settings.run
        try:
            server = find(run)
            states = _states(run, server) if server else {}
        except (ServerError, OSError, httpx.HTTPError, ValueError):
            states = {}
        unready = [name for name, state in states.items() if state != "READY"]
        found = {"ready": bool(states) and not unready, "models": states, "unready": unready}
        if found["ready"]:
            return json_response(found)
        message = f"not ready: {', '.join(unready)}" if unready else "TorchServe does not run"
        return refused(Refusal(503, "busy", "models", message), found)

    async def ask(self, task: str, request: Request) -> Response:
        """Pass a request on to TorchServe."""
        given, query = request.headers, request.scope["query_string"]
        key = re.fullmatch(r"(?i:bearer) +([^ ]+) *", given.get("authorization", ""))
        if key is None or not hmac.compare_digest(key[1].encode(), self.settings.key.encode()):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        if query and "x-explain-options" in given:
            return refused(NAMED_REFUSALS["options-twice"])
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
        raise HTTPException(status if status in REFUSALS else 502)
    headers = {"Content-Type": MEDIA[".json"], "Cache-Control": "no-store"}
    if status in RETRY_AFTER_S:
        headers["Retry-After"] = RETRY_AFTER_S[status]
    passed = ("Content-Type", "Content-Length", "Retry-After", "X-Explain-Error")
    return RelayedResponse(answer, headers | {name: given[name] for name in passed if name in given})


def _states(run: Path, server: Server) -> dict[str, str]:
    """The state of each model, by its address: as the supervisor tells it, else as TorchServe's management does."""
    supervisor = find_supervisor(run)
    if supervisor:
        answer = httpx.get(f"{supervisor.exporter}/readyz", timeout=READY_S, trust_env=False)
        found: dict[str, str] = answer.json()["models"]
        return found
    return {model: "READY" if "READY" in server.workers(model) else "UNAVAILABLE" for model in server.models}
