"""Waiting for what comes to be in its own time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

PAUSE_S = 0.05


def until(true: Callable[[], object], seconds: float = 60, process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until something holds; fail if it does not in time.

    Args:
        true: Function that tells whether it does.
        seconds: Time to wait, at most.
        process: Process that it is expected of, whose end is a failure, too.
    """
    ends = time.monotonic() + seconds
    while not true():
        if process is not None and process.poll() is not None:
            said = process.stdout.read() if process.stdout else ""
            raise AssertionError(f"the process has ended with {process.returncode}: {said}")
        assert time.monotonic() < ends, f"not within {seconds:g} s: {true}"
        time.sleep(PAUSE_S)
