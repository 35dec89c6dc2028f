"""What a worker has found out about its model once, and need not find out again."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Findings:
    """Of one model.

    Attributes:
        layers: by the layer that a plan names, None for the default: its full name and its number of channels.
        meant: the methods that have a meaning for the model, once somebody asked for one that has none.
        slowness: what maps have taken, relative to what they were estimated to take.
    """

    layers: dict[str | None, tuple[str, int]] = field(default_factory=dict)
    meant: tuple[str, ...] = ()
    slowness: float = 1.0
