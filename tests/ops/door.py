"""A front door in tests: who may ask, and requests through it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil
import pytest
import requests

from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge import Edge
from imagexplain.ops.edge_config import binary, installed
from imagexplain.ops.edge_settings import EdgeError, EdgeSettings, RateSettings, RaySettings
from imagexplain.ops.processes import birth
from imagexplain.ops.server import MAIN_CLASS, PORTS, ROOT, Server, free_port
from tests.waiting import until

CLIENTS = ("alice", "bob")
GENEROUS = RateSettings(requests_per_second=10_000, burst=10_000, connections=1000)


Behind = TypeVar("Behind", Server, Path)


@dataclass(frozen=True)
class AnyDoor(Generic[Behind]):
    """A running front door, what stands behind it, and the keys of its clients.

    Attributes:
        server: TorchServe, or the directory of the front door's state before nodes of Ray Serve.
    """

    server: Behind
    settings: EdgeSettings
    edge: Edge
    keys: dict[str, str]

    @property
    def run(self) -> Path:
        """Directory of the state."""
        return Path(self.edge.folder).parent

    @property
    def folder(self) -> Path:
        """Directory of the front door's state."""
        return self.run / edge.FOLDER

    def headers(self, client: str = "alice") -> dict[str, str]:
        """The header that authorises a client."""
        return {"Authorization": f"Bearer {self.keys[client]}"}

    def ask(
        self, path: str, body: Any = b"photo", *, method: str = "POST", client: str | None = "alice", **headers: str
    ) -> requests.Response:
        """The answer to a request of a connection of its own; in the names of headers ``_`` stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method,
            f"{self.edge.url}{path}",
            data=body if method in ("POST", "PUT") else None,
            headers={**(self.headers(client) if client else {}), **named},
            verify=self.edge.certificate,
            timeout=60,
            allow_redirects=False,
        )

    @contextmanager
    def settled(self, **changes: Any) -> Iterator[None]:
        """Other settings within the block."""
        edge.reload(self.server, EdgeSettings.model_validate({**self.settings.model_dump(), **changes}))
        try:
            yield
        finally:
            edge.reload(self.server, self.settings)

    def requests_logged(self) -> list[dict[str, Any]]:
        """The log of requests."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


Door = AnyDoor[Server]
RayDoor = AnyDoor[Path]


def nginx_with_javascript() -> str:
    """Path of nginx; where tests must not be left out, its absence is a failure."""
    try:
        found = binary()
        installed(found)
        return found
    except EdgeError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@contextmanager
def before_ray(run: Path, nodes: Iterable[str], applications: Iterable[str], **more: Any) -> Iterator[RayDoor]:
    """A front door before nodes of Ray Serve, whose limits no test meets that does not set its own."""
    keys = {client: edge_keys.add(run / edge.FOLDER, client) for client in CLIENTS}
    ray = RaySettings(nodes=tuple(nodes), applications=tuple(applications))
    settings = EdgeSettings(ray=ray, client=GENEROUS, address=GENEROUS, **{"port": free_port(), **more})
    running = edge.start(run, settings)
    try:
        yield RayDoor(run, settings, running, keys)
    finally:
        edge.stop(run, drain_s=1, quiet=True)


@contextmanager
def faked(run: Path, *models: str) -> Iterator[Server]:
    """A fake TorchServe of `tests/ops/fake_upstream.py`, with its state in `run`."""
    models = models or ("bit", "lanet")
    port = free_port()
    (run / "states.json").write_text(json.dumps(dict.fromkeys(models, "READY")))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ops.fake_upstream", str(run), str(port), MAIN_CLASS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        until((run / "fake.ready").exists, process=process)
        ports = dict(zip(PORTS, range(port, port + len(PORTS)), strict=True))
        started = birth(psutil.Process(process.pid))
        server = Server(ports, process.pid, started, str(run), str(run / "tmp"), "", models)
        (run / "server.json").write_text(json.dumps(asdict(server)))
        yield server
    finally:
        process.kill()
        process.wait()


def rotate_key(server: Server) -> str:
    """Have the fake server change its inference key; returns the new one."""
    before = server.headers()
    os.kill(server.pid, signal.SIGUSR1)
    until(lambda: _headers(server) not in (None, before))
    return server.headers()["Authorization"]


def _headers(server: Server) -> dict[str, str] | None:
    try:
        return server.headers()
    except Exception:
        return None


def error_of(answer: requests.Response) -> tuple[int, str, str]:
    """Status, word and field of an error in the service's form, which this checks."""
    assert answer.headers["Content-Type"] == "application/json", answer.text
    error = answer.json()
    assert {"code", "error", "field", "message"} <= error.keys() and error["code"] == answer.status_code, error
    assert answer.headers["X-Request-Id"]
    return answer.status_code, error["error"], error["field"]
