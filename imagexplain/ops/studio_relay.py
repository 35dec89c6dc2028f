"""A client's request passed on to TorchServe: its body as it comes, and the end of both if the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

WAIT_S = 900.0
"""Seconds for an answer; TorchServe itself ends what takes longer than its archive may."""
SILENCE_S = 30.0
CONNECT_S = 5.0


class RelayedResponse(StreamingResponse):
    """An answer of TorchServe, sent as it comes with headers of ours; where it breaks off, the connection does."""

    def __init__(self, answer: httpx.Response, headers: Mapping[str, str]) -> None:
        super().__init__(answer.aiter_raw(), answer.status_code, headers)
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except httpx.TransportError:
            pass  # uvicorn closes the connection: there is less than was announced
        finally:
            await self.answer.aclose()


def upstream() -> httpx.AsyncClient:
    """A client for TorchServe: by no proxy, and a connection for each request, which ends it by its own end."""
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S, read=WAIT_S)
    return httpx.AsyncClient(trust_env=False, timeout=timeout, limits=httpx.Limits(max_keepalive_connections=0))


async def relay(
    client: httpx.AsyncClient, request: Request, url: str, headers: Sequence[tuple[bytes, bytes]]
) -> httpx.Response:
    """Send a request, and wait until its answer begins or its client has gone.

    Args:
        client: Client for TorchServe.
        request: Request whose body is sent.
        url: Address to ask.
        headers: Headers to ask with.

    Raises:
        ClientDisconnect: the client has gone; so has the request.
        httpx.TimeoutException: no answer in time.
        httpx.TransportError: no answer.
    """
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk
        sent.set()

    async def leave() -> None:
        await sent.wait()  # before that, whoever reads the body is told
        while (await request.receive())["type"] != "http.disconnect":
            pass

    asked = httpx.Request("POST", url, headers=headers, content=body())
    asking = asyncio.create_task(client.send(asked, stream=True))
    leaving = asyncio.create_task(leave())
    try:
        done, _ = await asyncio.wait((asking, leaving), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not asking.done():
            asking.cancel()
    if asking in done:
        return asking.result()
    raise ClientDisconnect if leaving in done else httpx.ReadTimeout("no answer in time")
