"""Models and workers as a supervisor sees them, without a server."""

from __future__ import annotations

from typing import Any, cast

import psutil

from imagexplain.ops.observation import Model, Worker


class Process:
    """Stands for a worker's process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def worker(
    pid: int | None = 1, *, loaded: bool | None = None, status: str = psutil.STATUS_SLEEPING, **more: Any
) -> Worker:
    """A worker whose process has that number, or none; it is loaded if it has one."""
    process = None if pid is None else cast(psutil.Process, Process(pid))
    return Worker(str(9000 + (pid or 0)), pid is not None if loaded is None else loaded, process, status, **more)


def model(*workers: Worker, pending: int = 0, wanted: int = 1, retry_s: float = 300, name: str = "small") -> Model:
    """A model in its first version with these workers."""
    return Model(name, name, "1.0", workers, wanted, pending, retry_s)
