"""Pauses between attempts, which double while they fail."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
CALM_SECONDS = 600.0
"""Time after an attempt after which the next failure counts as the first again."""


@dataclass
class Backoff:
    """The time of the next attempt. Seconds by a clock that nobody sets."""

    attempts: int = 0
    last: float = float("-inf")

    def is_due(self, now: float) -> bool:
        """Tell whether the pause after the last attempt is over: 1, 2, 4, … seconds, 300 at most."""
        if now - self.last >= CALM_SECONDS:
            self.attempts = 0
        return self.attempts == 0 or now - self.last >= self.pause

    @property
    def pause(self) -> float:
        """Seconds from the last attempt to the next."""
        return min(FIRST_SECONDS * 2.0 ** min(self.attempts - 1, 20), LONGEST_SECONDS) if self.attempts else 0.0

    def attempted(self, now: float) -> None:
        """Take note of an attempt."""
        self.attempts += 1
        self.last = now
