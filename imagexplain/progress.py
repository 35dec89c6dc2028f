"""Lines of progress: no work takes more than two seconds without one, and no letter makes one fail."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from imagexplain.plain_text import printable

EVERY_SECONDS = 1.5

T = TypeVar("T")


def say(line: str) -> None:
    """Print a line, or several, at once, also into a pipe.

    Letters that the terminal's encoding lacks are escaped, and what could steer a terminal is spelled out.
    """
    parts = re.split(r"([ \n]+)", line)  # columns and lines stay
    shown = "".join(part if place % 2 else printable(part) for place, part in enumerate(parts))
    encoding = sys.stdout.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def with_progress(what: str, work: Callable[[], T]) -> T:
    """The result of `work`, with a line now and then while it runs; raises what it raises."""
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not wait([future], timeout=EVERY_SECONDS).done:
            say(f"  {time.monotonic() - started:3.0f} s: {what}")
        return future.result()
