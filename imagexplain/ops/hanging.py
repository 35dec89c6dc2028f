"""Workers that hang: told from those that compute for long, and from those that wait for another model's answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

from imagexplain.ops.observation import STOPPED, Model, Worker

STOPPED_SECONDS = 3.0
"""Time in the stopped state (SIGSTOP) after which a worker is ended; nothing but a signal puts it there."""
STALLED_SECONDS = 20.0
"""Time without a tick of the processor, while requests queue, after which a worker is ended."""
STOPPED_REASON, STALLED_REASON = REASONS = ("stopped", "stalled")


@dataclass(frozen=True)
class Hanging:
    """A worker that hangs: its model, and the reason, one of `REASONS`."""

    model: Model
    worker: Worker
    reason: str


@dataclass
class Watch:
    """Memory of what each worker looked like, by which one that hangs is found.

    A worker that explains takes processor time, however long it needs; one that waits for a segmenter's answer has a
    connection. One with neither, while requests wait for it, is stuck. TorchServe itself ends it after the model's
    `response_timeout_s`, and so it does where no further request waits.
    """

    _since: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)

    def look(self, models: Iterable[Model], now: float) -> list[Hanging]:
        """The workers that hang by now.

        Args:
            models: Models as they are seen at this moment.
            now: Seconds by a clock that nobody sets.
        """
        seen: dict[tuple[int, str], tuple[float, float]] = {}
        hanging = []
        for model in models:
            for worker in model.workers:
                suspicion = _suspicion(model, worker)
                if suspicion is None or worker.process is None:
                    continue
                reason, patience = suspicion
                key = (worker.process.pid, reason)
                since, cpu_s = self._since.get(key, (now, worker.cpu_s))
                if cpu_s != worker.cpu_s:
                    since = now
                seen[key] = since, worker.cpu_s
                if now - since >= patience:
                    hanging.append(Hanging(model, worker, reason))
        self._since = seen
        return hanging


def _suspicion(model: Model, worker: Worker) -> tuple[str, float] | None:
    if worker.state == STOPPED:
        return STOPPED_REASON, STOPPED_SECONDS
    stuck = worker.loaded and model.pending > 0 and not worker.asks and worker.status == psutil.STATUS_SLEEPING
    return (STALLED_REASON, STALLED_SECONDS) if stuck else None
