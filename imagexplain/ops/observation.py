"""Observation of a running server: its models, their workers, and what the workers' processes do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from imagexplain.ops import fork_workers
from imagexplain.ops.drain import describe
from imagexplain.ops.server import Server

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
STOPPED, DEAD = "STOPPED", "DEAD"
WORKER_STATES = (READY, LOADING, STOPPED, DEAD)
_SOCKET = re.compile(r" --(?:sock-name .*?/\.ts\.sock\.|port )(\d+)")
_SUSPENDED = psutil.STATUS_STOPPED  # by SIGSTOP; under a debugger it would be STATUS_TRACING_STOP


@dataclass(frozen=True)
class Worker:
    """A worker: TorchServe's word on it, and its process at this moment.

    Attributes:
        loaded: Flag for a model that TorchServe has seen loaded in this worker.
        process: The process, None where there is none now.
        status: State of the process, in psutil's words.
        cpu_s: Seconds of processor time that the process has taken.
        asks: Flag for a connection to another server, whose answer the worker may be waiting for; looked at only
            while requests wait.
    """

    id: str
    loaded: bool
    process: psutil.Process | None = None
    status: str = ""
    cpu_s: float = 0.0
    asks: bool = False

    @property
    def state(self) -> str:
        """One of `WORKER_STATES`."""
        if self.process is None:
            return DEAD
        if self.status == _SUSPENDED:
            return STOPPED
        return READY if self.loaded else LOADING


@dataclass(frozen=True)
class Model:
    """A model of a server.

    Attributes:
        address: Place in addresses: the name, and the version where there are several of the name.
        wanted: Number of workers that it is to have.
        pending: Requests that no worker has taken yet.
        retry_s: Seconds for which TorchServe tries to start a worker that has died.
    """

    address: str
    name: str
    version: str
    workers: tuple[Worker, ...]
    wanted: int
    pending: int
    retry_s: float

    @property
    def state(self) -> str:
        """READY with a worker that answers, LOADING with one that may soon, UNAVAILABLE without."""
        states = {worker.state for worker in self.workers}
        return next((state for state in (READY, LOADING) if state in states), UNAVAILABLE)


def observe(server: Server, addresses: Iterable[str] | None = None) -> tuple[Model, ...]:
    """The models of a server at this moment.

    Args:
        addresses: Models to look at, by name or name/version; those that the server is to serve, if not given.

    Raises:
        OSError: the server does not answer.
        ValueError: it answers something else.
    """
    processes = _worker_processes(server)
    looked_at = server.models if addresses is None else addresses
    return tuple(_model(address, describe(server, address), processes) for address in looked_at)


def _model(address: str, about: dict[str, Any], processes: dict[str, psutil.Process]) -> Model:
    pending = about["jobQueueStatus"]["pendingRequests"]
    workers = tuple(_worker(each, processes.get(str(each["id"])), pending > 0) for each in about["workers"])
    return Model(
        address,
        about["modelName"],
        about["modelVersion"],
        workers,
        about["minWorkers"],
        pending,
        float(about["maxRetryTimeoutInSec"]),
    )


def _worker(about: dict[str, Any], process: psutil.Process | None, busy: bool) -> Worker:
    identity, loaded = str(about["id"]), about["status"] == READY
    if process is None:
        return Worker(identity, loaded)
    try:
        with process.oneshot():
            times, status = process.cpu_times(), process.status()
        if status == psutil.STATUS_ZOMBIE:
            return Worker(identity, loaded)
        asks = busy and any(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("inet"))
        return Worker(identity, loaded, process, status, times.user + times.system, asks)
    except psutil.Error:
        return Worker(identity, loaded)


def _worker_processes(server: Server) -> dict[str, psutil.Process]:
    """The processes of the workers by TorchServe's number of each, which stands at the end of its socket's name.

    TorchServe's own word on a worker's process is that of the last one, until a new one has told its number.
    """
    frontend = server.process()
    found: dict[str, psutil.Process] = {}
    try:
        children = frontend.children() if frontend else []
    except psutil.Error:
        return found
    for process in (*children, *fork_workers.copies(Path(server.scratch))):  # a copy is what its launcher stands for
        try:
            named = _SOCKET.search(" ".join(process.cmdline()))
        except psutil.Error:
            continue
        if named:
            found[named[1]] = process
    return found
