"""Objects that do harm where they are unpickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Calls:
    """Unpickling it calls a function with these arguments, then sets a state if there is one."""

    def __init__(self, function: Callable[..., object], *arguments: Any, state: Any = None) -> None:
        self.reduced = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced
