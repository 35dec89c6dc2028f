"""The supervisor's metrics, by its own exporter, of models that a test says are ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from imagexplain.ops.exporter import Status, exported
from imagexplain.ops.observation import READY, Model, Worker
from tests.deploy.prometheus_server import free_port


@contextmanager
def supervisor_metrics(*models: str) -> Iterator[tuple[str, Status]]:
    """The address of the metrics, and the facts that they tell."""
    worker = Worker("9000", loaded=True, process=psutil.Process())  # any that lives
    status = Status(
        states=dict.fromkeys(models, READY),
        models=tuple(Model(name, name, "1.0", (worker,), wanted=1, pending=0, retry_s=300.0) for name in models),
        archives=dict.fromkeys(models, "ab" * 32),
        frontend_up=True,
        load_s=dict.fromkeys([(name, "1.0") for name in models], 2.5),
        free_bytes=5 * 10**9,
    )
    status.restarts.update(dict.fromkeys([("model", name) for name in models], 0))
    port = free_port()
    with exported(status, port):
        yield f"127.0.0.1:{port}", status
