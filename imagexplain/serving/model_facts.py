"""Facts about the loaded model that are computed once: layer names, supported methods, observed cost ratios."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagexplain.serving.deadline import ema

MAX_COST_RATIO = 32.0
"""Factor by which a method is taken to be slower or quicker than estimated, at most."""

MAX_RATIO_CHANGE = 4.0
"""Factor between a known cost ratio and one measurement of it, at most: a busy moment must not lock a method out."""


@dataclass
class ModelFacts:
    """Facts about one model.

    Attributes:
        supported_methods: Names of the methods that the model supports, in order; none where its kind does not say.
        layers: Full name and number of channels of a layer, by the name that a request gives; None for the default.
        map_cost_ratio: Time of a method's evaluations relative to their estimate, by method and layer; 1 for what was
            never seen.
    """

    supported_methods: tuple[str, ...] = ()
    layers: dict[str | None, tuple[str, int]] = field(default_factory=dict)
    map_cost_ratio: dict[tuple[str, str | None], float] = field(default_factory=dict)

    def cost_ratio_of(self, method: str, layer: str | None = None) -> float:
        """Time of the method's evaluations, relative to the estimate that does not know it."""
        return self.map_cost_ratio.get((method, layer), 1.0)

    def learn(self, method: str, layer: str | None, ratio: float, *, finished: bool) -> None:
        """Take a measurement into account, of a method that took ``ratio`` times as long as estimated.

        Of one that was given up it is known that it takes longer.
        """
        known = self.cost_ratio_of(method, layer)
        if not finished and ratio <= known:
            return
        seen = min(max(ratio, known / MAX_RATIO_CHANGE), known * MAX_RATIO_CHANGE)
        self.map_cost_ratio[method, layer] = min(max(ema(known, seen, 1), 1 / MAX_COST_RATIO), MAX_COST_RATIO)
