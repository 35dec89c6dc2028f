"""Settings of the scoring of methods."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings by which the methods are scored.

    Attributes:
        removals: Number of random removals of groups for infidelity.
        radius: Radius of the noise for max-sensitivity, in model space.
        noisy: Number of images with noise for max-sensitivity.
        draws: Number of draws of the uniform-noise baseline.
        blur: Standard deviation of the blurred-image baseline, pixels.
        repeat_steps: Number of midpoint steps of the second opinion on the path integral.
        orders: Number of pairs of orders in which groups join, for the Shapley values of superpixels.
        road: Shares of the pixels that ROAD removes, each of which takes the solution of a large system, twice.
        samples: KernelShap's numbers of samples.
    """

    removals: int = 64
    radius: float = 0.02
    noisy: int = 10
    draws: int = 8
    blur: float = 4.0
    repeat_steps: int = 64
    orders: int = 50
    road: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    samples: tuple[int, ...] = (25, 50, 100, 150, 200, 400, 800)
