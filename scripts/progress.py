"""Words while work goes on: nothing takes more than two seconds without a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

EVERY_SECONDS = 1.5

T = TypeVar("T")


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(line, flush=True)


def with_progress(what: str, work: Callable[[], T]) -> T:
    """The result of `work`, with a line now and then while it runs; raises what it raises."""
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not wait([future], timeout=EVERY_SECONDS).done:
            say(f"  {time.monotonic() - started:3.0f} s: {what}")
        return future.result()
