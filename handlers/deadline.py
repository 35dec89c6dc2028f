"""The time a batch may take: TorchServe kills a worker that answers later than its response timeout."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from handlers.wire.errors import RequestError

NEWEST = 0.3
"""Weight of the latest measurement in the running estimate of the speed."""


@dataclass(frozen=True)
class Deadline:
    """A budget of seconds for one batch, and what one path point costs.

    Attributes:
        ends: clock reading by which the batch must be answered.
        budget: seconds a batch may take in all.
        seconds_per_evaluation: of one path point.
        committed: path points already admitted.
        clock: seconds, monotonic.
    """

    ends: float
    budget: float
    seconds_per_evaluation: float
    committed: int = 0
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def starting_now(
        cls, budget: float, seconds_per_evaluation: float, clock: Callable[[], float] = time.monotonic
    ) -> Deadline:
        """A deadline ``budget`` seconds from now."""
        return cls(clock() + budget, budget, seconds_per_evaluation, clock=clock)

    def admit(self, evaluations: int) -> Deadline:
        """The deadline with that many more path points committed.

        Raises:
            RequestError: 413 if they would not fit an empty batch either, 503 if they do not fit beside the others.
        """
        seconds = evaluations * self.seconds_per_evaluation
        if seconds > self.budget:
            most = int(self.budget / self.seconds_per_evaluation)
            message = f"wanted an explanation of at most {self.budget:.0f} s, about {most} steps on this host"
            raise RequestError(413, "steps", f"{message}, got {evaluations} steps, about {seconds:.0f} s")
        if self.clock() + self.committed * self.seconds_per_evaluation + seconds > self.ends:
            message = f"the batch is full: {evaluations} steps, about {seconds:.0f} s, do not fit it; try again"
            raise RequestError(503, "steps", message)
        return replace(self, committed=self.committed + evaluations)

    def check(self, remaining: int) -> None:
        """Give up between two chunks when the rest cannot be in time, rather than be killed with the worker.

        Raises:
            RequestError: 503.
        """
        if self.clock() > self.ends:
            message = f"wanted an answer within {self.budget:.0f} s, {remaining} path points were left; try again"
            raise RequestError(503, "steps", message)


def updated(estimate: float, seconds: float, evaluations: int) -> float:
    """The running estimate of seconds per path point, after a pass of so many points took so many seconds."""
    return (1 - NEWEST) * estimate + NEWEST * seconds / evaluations
