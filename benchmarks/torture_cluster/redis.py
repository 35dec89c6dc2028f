"""A Redis in which a head keeps what it knows, so that another head can take its place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.torture.waiting import listens, until
from imagexplain.ops.server import free_port

PROGRAM = "redis-server"
MAX_START_S = 30.0


def installed() -> bool:
    """Tell whether this machine has a Redis."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def redis() -> Iterator[str]:
    """Start a Redis on the loopback, which keeps nothing on the disk; yields its address."""
    port = free_port()
    command = [PROGRAM, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: listens(port), MAX_START_S, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
