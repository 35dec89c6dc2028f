"""Settings of a captioner's training: all that decides its weights, beside the network and the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imagexplain.errors import ArgumentError


@dataclass(frozen=True)
class CaptionConfig:
    """The settings; by default the recipe of the captioner's authors.

    Attributes:
        epochs: Number of times that the items are gone through.
        batch: Number of items per update.
        rate: Adam's learning rate, the highest.
        warmup_steps: Number of updates in which the rate rises linearly from 0.
        falling: Flag for a rate that falls to 0 by half a cosine after that, rather than staying.
        beta2: Adam's rate of decay of the squared gradients.
        clip: Norm to which an update's gradient is clipped; None for no clipping.
        bucket: Number of batches whose items are shared out by the length of their captions; 1 for none. Captions of
            one length waste no steps on those that have ended.
        seed: Seed of the order and of dropout.
    """

    epochs: int = 100
    batch: int = 128
    rate: float = 2e-4
    warmup_steps: int = 0
    falling: bool = False
    beta2: float = 0.999
    clip: float | None = None
    bucket: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that train nothing.

        Raises:
            ArgumentError: naming the setting.
        """
        for field in ("epochs", "batch", "bucket"):
            if getattr(self, field) < 1:
                raise ArgumentError(field, f"wanted at least 1, got {getattr(self, field)}")
        if self.warmup_steps < 0:
            raise ArgumentError("warmup_steps", f"wanted at least 0, got {self.warmup_steps}")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ArgumentError("rate", f"wanted a finite rate above 0, got {self.rate}")
        if not 0 <= self.beta2 < 1:
            raise ArgumentError("beta2", f"wanted 0 … 1, below 1, got {self.beta2}")
        if self.clip is not None and not self.clip > 0:
            raise ArgumentError("clip", f"wanted a norm above 0, got {self.clip}")

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of an update, counted from 0, of so many.

        Example:
            >>> from training.captioning.config import CaptionConfig
            >>> config = CaptionConfig(rate=2.0, warmup_steps=2, falling=True)
            >>> [round(config.rate_at(step, 6), 3) for step in range(6)]
            [1.0, 2.0, 2.0, 1.707, 1.0, 0.293]
        """
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        if not self.falling:
            return self.rate
        over = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return self.rate * 0.5 * (1 + math.cos(math.pi * over))
