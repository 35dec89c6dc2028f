"""The time a batch may take: TorchServe kills a worker that answers later than its response timeout."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from imagexplain.errors import RequestError

EMA_WEIGHT = 0.3
"""Weight of the latest measurement in the running estimate of the speed."""

CHUNK_SHARE = 0.1
"""Part of the budget that one chunk may take, so that the check between two chunks comes often enough."""

MIN_ADMITTED_SECONDS = 1.0
"""Seconds from which work that never checks the deadline on its way is worth an admission of its own."""


@dataclass(frozen=True)
class Deadline:
    """A budget of seconds for one batch, with the estimated cost of a path point.

    All work that a request asks for is admitted here before it is done, be it counted in points or in seconds.

    Attributes:
        ends: Clock reading by which the batch must be computed.
        budget: Seconds that a batch may take in all.
        seconds_per_point: Estimate of the seconds that one point among many takes.
        always_admitted: Number of points that are always tried when they are alone: without a pass, a wrong estimate
            would never be corrected.
        committed: Seconds of the work already admitted.
        clock: Monotonic clock, seconds.
    """

    ends: float
    budget: float
    seconds_per_point: float
    always_admitted: int = 0
    committed: float = 0.0
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def starting_now(
        cls,
        budget: float,
        seconds_per_point: float,
        always_admitted: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> Deadline:
        """A deadline ``budget`` seconds from now."""
        return cls(clock() + budget, budget, seconds_per_point, always_admitted, clock=clock)

    def admit(self, points: int = 0, field: str = "steps", *, seconds: float = 0.0) -> Deadline:
        """The deadline with that much more work committed.

        Where the work is done at once, the deadline as it was goes on: the clock counts what is done.

        Args:
            points: Number of path points, or of what costs as much.
            field: Field of the request that decides the number, for the error.
            seconds: Estimate of all other work, beside the model's evaluations.

        Raises:
            RequestError: 413 if they would not fit an empty batch either, 503 if they do not fit beside the others.
        """
        of_points = points * self.seconds_per_point
        tried = not self.committed and points <= self.always_admitted
        estimate = seconds if tried else of_points + seconds
        if estimate > self.budget:
            raise RequestError(413, field, self._too_much(points, estimate, seconds))
        if estimate and self.clock() + self.committed + estimate > self.ends:
            work = f"{points} points, " if points else ""
            message = f"the batch is full: {work}about {estimate:.0f} s, do not fit it; try again"
            raise RequestError(503, field, message)
        return replace(self, committed=self.committed + of_points + seconds)

    def _too_much(self, points: int, estimate: float, seconds: float) -> str:
        most, given = f"at most {self.budget:.0f} s", f"about {estimate:.0f} s"
        if not points:
            return f"wanted work of {most}, got {given}"
        if seconds < self.budget:
            most += f", about {int((self.budget - seconds) / self.seconds_per_point)} points on this host"
        beside = f", {seconds:.0f} s of them beside the model" if seconds >= 1 else ""
        return f"wanted an explanation of {most}, got {points} points, {given}{beside}"

    def check(self, remaining: int) -> None:
        """Give up between two chunks once the time is over, rather than be killed with the worker.

        Raises:
            RequestError: 503.
        """
        self._check(f"{remaining} path points were left")

    def check_rows(self, rows: int) -> None:
        """The same check where the evaluations made so far are counted.

        Raises:
            RequestError: 503.
        """
        self._check(f"{rows} evaluations were not enough")

    def check_start(self) -> None:
        """The same check before a photo's instances are predicted, where earlier requests of the batch took the time.

        Raises:
            RequestError: 503.
        """
        self._check("the batch was full before this photo's turn", "image")

    def check_masks(self) -> None:
        """The same check between two masks that are brought into the model's frame.

        Raises:
            RequestError: 503.
        """
        self._check("masks were left", "masks")

    def _check(self, state: str, field: str = "steps") -> None:
        if self.clock() > self.ends:
            raise RequestError(503, field, f"wanted an answer within {self.budget:.0f} s, {state}; try again")


def ema(estimate: float, seconds: float, points: int) -> float:
    """The running estimate of seconds per point, after a pass of so many points took so many seconds."""
    return (1 - EMA_WEIGHT) * estimate + EMA_WEIGHT * seconds / points
