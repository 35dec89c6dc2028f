"""A configured attribution as a value: methods, options, layer and smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imagexplain.attribution.registry import METHODS


@dataclass(frozen=True)
class Smoothing:
    """Noise over which a map is averaged; see :func:`imagexplain.attribution.methods.smoothgrad.smooth`."""

    samples: int = 25
    std: float = 0.15
    seed: int = 0
    statistic: str = "mean"


@dataclass(frozen=True)
class AttributionConfig:
    """Configuration of a map: its method, or two, with options, layer and smoothing.

    Attributes:
        methods: Name of one of :data:`imagexplain.attribution.METHODS`, or of two whose maps are multiplied, the fine
            one first.
        options: Options of the methods, by name; a method gets those that it takes.
        layer: Dotted name of the layer for methods that look at one, None for the model's default.
        smoothing: Noise over which each map is averaged, if any.
        normalized: Scaling of two maps and their product to 0..1; see
            :func:`imagexplain.attribution.methods.guided_grad_cam.combine`.
    """

    methods: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    layer: str | None = None
    smoothing: Smoothing | None = None
    normalized: bool = False

    @property
    def name(self) -> str:
        """Name of the method, or of both with a sign of multiplication."""
        return " × ".join(self.methods)

    @property
    def takes(self) -> frozenset[str]:
        """Options and inputs that the methods take."""
        return frozenset().union(*(METHODS[method].parameters for method in self.methods))

    @property
    def of_groups(self) -> bool:
        """Test whether a map has the value of a group at each of its pixels, whose sum would count it as often."""
        return len(self.methods) == 1 and "groups" in self.takes

    @property
    def needs_original(self) -> bool:
        """Test whether a method wants the network as its authors wrote it, for which a folded one will not do."""
        return any(METHODS[method].needs_original for method in self.methods)

    @property
    def own_baselines(self) -> bool:
        """Test whether a method makes baselines of each image where it is given none."""
        return any(METHODS[method].own_draws for method in self.methods)

    def settings(self) -> dict[str, Any]:
        """Options by name, given or not, and the smoothing's."""
        usual = {name: value for method in self.methods for name, value in METHODS[method].options.items()}
        given = dict(self.options)
        return {name: given.get(name, usual[name]) for name in sorted(usual)}
