"""How the methods are scored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How the methods are scored.

    Attributes:
        removals: random groups taken away for infidelity.
        radius: of the noise for max-sensitivity, in model space.
        noisy: images with noise for max-sensitivity.
        draws: of the uniform-noise baseline.
        blur: standard deviation of the blurred-image baseline, pixels.
        repeat_steps: midpoint steps of the second opinion on the path integral.
        orders: pairs of orders in which groups join, for the Shapley values of superpixels.
        samples: KernelShap's numbers of samples.
    """

    removals: int = 64
    radius: float = 0.02
    noisy: int = 10
    draws: int = 8
    blur: float = 4.0
    repeat_steps: int = 64
    orders: int = 50
    samples: tuple[int, ...] = (25, 50, 100, 150, 200, 400, 800)
