"""The service as it is deployed: a supervised TorchServe behind its front door, in directories of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil

from benchmarks.torture.load import Load
from benchmarks.torture.waiting import until
from imagexplain.archive.build import build_all
from imagexplain.checkout import ROOT
from imagexplain.client.loopback import urlopen
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import EdgeSettings, RateSettings
from imagexplain.ops.server import Server, find, free_port

MODELS = ("bit", "tensormask", "vit")
CLIENT = "torture"
GENEROUS = RateSettings(requests_per_second=10_000, burst=10_000, connections=1_000)
"""Limits under which what TorchServe does is seen, and not the front door's refusals."""
READY_SECONDS = 180.0


@dataclass(frozen=True)
class Service:
    """The running service.

    Attributes:
        supervisor: Process of the supervisor.
        folder: Directory of store, state and spare archives.
        load: Clients.
    """

    supervisor: subprocess.Popen[bytes]
    folder: Path
    load: Load

    @property
    def run(self) -> Path:
        """Directory of the server's state."""
        return self.folder / "run"

    @property
    def server(self) -> Server:
        """The server that runs at present.

        Raises:
            RuntimeError: none does.
        """
        server = find(self.run)
        if server is None:
            raise RuntimeError("no server runs")
        return server

    def worker(self, model: str) -> int:
        """Number of a model's worker process."""
        server = self.server
        request = Request(f"{server.management}/models/{model}", headers=server.headers("management"))
        with urlopen(request, timeout=10) as answer:
            (found,) = json.load(answer)[0]["workers"]
        return int(found["pid"])

    def private_mib(self) -> dict[str, int]:
        """Private memory of each model's worker, MiB."""
        return {model: psutil.Process(self.worker(model)).memory_full_info().uss >> 20 for model in MODELS}


@contextmanager
def service(folder: Path, models: Sequence[str] = MODELS, *, door: RateSettings = GENEROUS) -> Iterator[Service]:
    """Build archives, start the supervisor and the front door, and stop all of it at the end.

    Args:
        folder: Directory for all files, empty.
        models: Names of the demonstration's archives to serve.
        door: Limits of each client at the front door.
    """
    build_all([ROOT / "archive_specs" / f"{model}.yaml" for model in models], folder / "store", environ={})
    run, port = folder / "run", free_port()
    command = [sys.executable, str(ROOT / "scripts" / "server.py"), "supervise", "--replaceable", "--drain", "10"]
    command += ["--store", str(folder / "store"), "--run", str(run), "--port", str(port)]
    with (folder / "supervisor.log").open("w") as log:
        supervisor = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        until(lambda: (run / "supervisor.json").exists() and is_ready(run), READY_SECONDS, supervisor)
        server = find(run)
        if server is None:
            raise RuntimeError("the server has ended")
        settings = EdgeSettings(port=free_port() + 15, client=door, address=GENEROUS)
        running = edge.start(server, settings)
        key = edge_keys.add(run / edge.FOLDER, CLIENT)
        edge.reload_keys(run)
        yield Service(supervisor, folder, Load((running.url,), key, running.certificate))
    finally:
        edge.stop(run, drain_s=5, quiet=True)
        supervisor.terminate()
        try:
            supervisor.wait(60)
        except subprocess.TimeoutExpired:
            supervisor.kill()


def is_ready(run: Path) -> bool:
    """Tell whether the supervisor says that every model is ready."""
    try:
        port = json.loads((run / "supervisor.json").read_text())["port"]
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            about: dict[str, Any] = json.load(answer)
            return bool(about["ready"])
    except (OSError, ValueError, KeyError):
        return False
