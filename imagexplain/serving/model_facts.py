"""What a worker has found out about its model once, and need not find out again."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagexplain.serving.deadline import updated

MOST = 32.0
"""How much slower or quicker than estimated a method is taken to be, at most."""

AT_ONCE = 4.0
"""How much further than what is known one measurement may point: a busy moment must not lock a method out."""


@dataclass
class Findings:
    """Of one model.

    Attributes:
        layers: by the layer that a plan names, None for the default: its full name and its number of channels.
        meant: the methods that have a meaning for the model, once somebody asked for one that has none.
        slowness: by method and layer, what its evaluations have taken, relative to what they were estimated to take; 1
            for what was never seen.
    """

    layers: dict[str | None, tuple[str, int]] = field(default_factory=dict)
    meant: tuple[str, ...] = ()
    slowness: dict[tuple[str, str | None], float] = field(default_factory=dict)

    def slowness_of(self, method: str, layer: str | None = None) -> float:
        """What the method's evaluations take, relative to what they are estimated to take without knowing it."""
        return self.slowness.get((method, layer), 1.0)

    def learn(self, method: str, layer: str | None, ratio: float, *, finished: bool) -> None:
        """Take a measurement into account, of a method that took ``ratio`` times as long as estimated.

        Of one that was given up it is known that it takes longer.
        """
        known = self.slowness_of(method, layer)
        if not finished and ratio <= known:
            return
        seen = min(max(ratio, known / AT_ONCE), known * AT_ONCE)
        self.slowness[method, layer] = min(max(updated(known, seen, 1), 1 / MOST), MOST)
