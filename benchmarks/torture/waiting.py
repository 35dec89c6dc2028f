"""Waiting for what another process does."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable


def until(true: Callable[[], object], seconds: float, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not within the time, or the process that it is expected of has ended.
    """
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends or (process is not None and process.poll() is not None):
            raise TimeoutError(f"waited {seconds:.0f} s in vain")
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Tell whether a port of the loopback takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
