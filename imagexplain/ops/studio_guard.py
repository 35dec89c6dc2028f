"""A guard of the studio's own server: it numbers requests, and refuses what pages of other origins send."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagexplain.ops.refusals import MAX_BODY_BYTES, NAMED_REFUSALS, Refusal
from imagexplain.ops.studio_responses import REFUSALS, refused

MAX_HEADER_BYTES = 6000
"""Bytes of the address and all headers, as at the front door; TorchServe takes 8 kB."""

_FOREIGN_HOST = Refusal(
    403, "forbidden", "host", "wanted an address of the loopback, as the studio's command prints it"
)


@dataclass
class Guard:
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
        await (refused(refusal) if refusal else self.app)(scope, receive, numbered)

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
            return REFUSALS[431]
        return REFUSALS[413] if int(headers.get("content-length", 0)) > MAX_BODY_BYTES else None
