"""Models whose workers TorchServe has given up, and their workers' start anew.

TorchServe starts a worker that has died again, with longer and longer pauses, and leaves it dead when the model's
`retry_timeout_s` are over; requests then wait in the queue for nobody. Scaled to no workers and back, the model gets
new ones, and those requests their answers. That must not be done during one of TorchServe's pauses: at its end a worker
would be started that TorchServe itself no longer knows of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.request import Request

from imagexplain.client.loopback import urlopen
from imagexplain.ops.backoff import Backoff
from imagexplain.ops.observation import DEAD, Model, Worker
from imagexplain.ops.server import Server

PAUSES = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
"""Seconds between TorchServe's attempts to start a worker (BACK_OFF in its WorkerThread.java)."""
MARGIN_SECONDS = 5.0
SCALE_SECONDS = 60.0


def longest_pause(retry_s: float) -> float:
    """The longest pause, in seconds, that TorchServe begins within the time for which it tries.

    Example:
        >>> from imagexplain.ops.revival import longest_pause
        >>> longest_pause(300), longest_pause(1)
        (144, 1)
    """
    begun, longest = 0, 0
    for pause in PAUSES:
        if begun >= retry_s:
            break
        begun, longest = begun + pause, pause
    return longest


@dataclass
class Revivals:
    """Memory of the models without any living worker: since when, and how often they were given new ones."""

    _dead_since: dict[str, float] = field(default_factory=dict)
    _backoffs: dict[str, Backoff] = field(default_factory=dict)

    def due(self, models: Iterable[Model], now: float) -> list[Model]:
        """The models that TorchServe has given up by now, and for which the pause since the last attempt is over.

        Args:
            models: Models as they are seen at this moment.
            now: Seconds by a clock that nobody sets.
        """
        dead = [model for model in models if model.wanted and all(map(_is_dead, model.workers))]
        self._dead_since = {model.address: self._dead_since.get(model.address, now) for model in dead}
        return [
            model
            for model in dead
            if now - self._dead_since[model.address] >= longest_pause(model.retry_s) + MARGIN_SECONDS
            and self._backoff(model).is_due(now)
        ]

    def attempted(self, model: Model, now: float) -> float:
        """Take note of an attempt; returns the pause until the next one, in seconds."""
        backoff = self._backoff(model)
        backoff.attempted(now)
        return backoff.pause

    def _backoff(self, model: Model) -> Backoff:
        return self._backoffs.setdefault(model.address, Backoff())


def _is_dead(worker: Worker) -> bool:
    """Tell whether a worker has no process, and TorchServe says so, too."""
    return worker.state == DEAD and not worker.loaded


def revive(server: Server, model: Model) -> None:
    """Give a model new workers in the place of its dead ones; returns before they have loaded it.

    Raises:
        OSError: the server does not answer, or refuses.
    """
    for count in (0, model.wanted):
        address = f"{server.management}/models/{model.name}/{model.version}"
        sizes = f"min_worker={count}&max_worker={count}&synchronous=false"
        request = Request(f"{address}?{sizes}", headers=server.headers("management"), method="PUT")
        with urlopen(request, timeout=SCALE_SECONDS):
            pass
