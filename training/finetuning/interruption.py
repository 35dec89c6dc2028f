"""Interruptions of a command: it is told to end, and ends when it has saved its work."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPED = 130
"""Exit status of a run that was interrupted, as shells know it."""


@contextmanager
def until_interrupted() -> Iterator[Callable[[], bool]]:
    """Function that says whether the process was told to end; told twice, it ends at once."""
    told: list[int] = []

    def handle(number: int, frame: object) -> None:
        told.append(number)
        if len(told) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
