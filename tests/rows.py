"""How many rows a network is given, for tests of what a method evaluates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def rows_through(module: nn.Module) -> Iterator[list[int]]:
    """A list that grows by the number of rows of each call of the module."""
    rows: list[int] = []
    handle = module.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    try:
        yield rows
    finally:
        handle.remove()
