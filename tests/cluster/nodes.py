"""Nodes of the tests' cluster: small ones, for several of them run on one machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}


@contextmanager
def own_signals() -> Iterator[None]:
    """This process's own handling of SIGTERM after the block: a node of Ray's that is started puts its in the place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
