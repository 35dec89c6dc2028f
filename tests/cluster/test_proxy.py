"""What the front door takes for granted of Ray's proxies, without a cluster: how they tell a death, and a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from ray.exceptions import ActorDiedError
from ray.serve._private.http_util import (
    RequestIdMiddleware,
    get_http_response_status,
    parse_request_timeout_header,
    send_http_response_on_exception,
)

from imagexplain.ops.server import free_port


async def proxy(scope: Any, receive: Any, send: Any) -> None:
    """As HTTPProxy: the replica's own answer, or, of one that died, what is sent for it."""
    if scope["path"] == "/raised":
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"Internal Server Error"})
        return
    for message in send_http_response_on_exception(get_http_response_status(ActorDiedError(), 120, "1"), False):
        await send(message)


@pytest.fixture
def url() -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(RequestIdMiddleware(proxy), port=port, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_500_of_a_dead_replica_has_no_id(url: str) -> None:
    died = httpx.post(f"{url}/died", headers={"x-request-id": "1"}, trust_env=False)
    assert (died.status_code, died.text) == (500, "Internal Server Error")
    assert "x-request-id" not in died.headers
    raised = httpx.post(f"{url}/raised", headers={"x-request-id": "1"}, trust_env=False)
    assert (raised.status_code, raised.text, raised.headers["x-request-id"]) == (500, "Internal Server Error", "1")


def test_the_time_is_the_front_doors() -> None:
    assert get_http_response_status(TimeoutError(), 120, "1").code == 408
    assert parse_request_timeout_header({b"x-request-timeout-seconds": b"190"}, 120) == 190
