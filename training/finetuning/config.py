"""Settings of a fine-tuning run: all that decides its weights, beside the network, the images and the processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imagexplain.errors import ArgumentError

RATE_BATCH = 256
"""Number of images per update for which :attr:`FinetuneConfig.base_rate` is meant."""

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings; by default MAE's recipe for ViT-B/16.

    Attributes:
        epochs: Number of times that the training images are gone through.
        warmup_epochs: Number of epochs in which the rate rises linearly from 0; may be a fraction.
        batch: Number of images that a process sends through the network at once.
        accumulation: Number of batches whose gradients make one update.
        base_rate: Highest learning rate for 256 images per update; it grows with their number.
        rate: Highest learning rate itself, in the place of ``base_rate``.
        min_rate: Learning rate at the end.
        layer_decay: Factor of the learning rate from each block to the one before it.
        weight_decay: AdamW's weight decay, of parameters with two and more dimensions.
        betas: AdamW's two rates of decay.
        clip: Norm to which an update's gradient is clipped; None for no clipping.
        mixup: Alpha of mixup (Zhang et al. 2018); 0 for none.
        cutmix: Alpha of CutMix (Yun et al. 2019); 0 for none.
        mix_probability: Probability that a batch is mixed at all.
        switch_probability: Probability that it is mixed by CutMix, where both are on.
        smoothing: Label smoothing.
        precision: Numbers of the forward pass; float16 comes with scaled losses.
        seed: Seed of the order, of augmentation, of mixing and of what the network draws.
    """

    epochs: int = 100
    warmup_epochs: float = 5
    batch: int = 64
    accumulation: int = 4
    base_rate: float = 5e-4
    rate: float | None = None
    min_rate: float = 1e-6
    layer_decay: float = 0.65
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    smoothing: float = 0.1
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulation"):
            _check(name, "a whole number of at least 1", getattr(self, name), getattr(self, name) >= 1)
        for name in ("base_rate", "min_rate", "weight_decay", "mixup", "cutmix"):
            _check(name, "a number that is not negative", getattr(self, name), getattr(self, name) >= 0)
        for name in ("mix_probability", "switch_probability"):
            _check(name, "a probability", getattr(self, name), 0 <= getattr(self, name) <= 1)
        for name in ("rate", "clip"):
            value = getattr(self, name)
            _check(name, "a positive number, or none", value, value is None or value > 0)
        fits = 0 <= self.warmup_epochs < self.epochs
        _check("warmup_epochs", f"fewer than the {self.epochs} epochs", self.warmup_epochs, fits)
        _check("layer_decay", "a factor in (0, 1]", self.layer_decay, 0 < self.layer_decay <= 1)
        _check("smoothing", "a number in [0, 1)", self.smoothing, 0 <= self.smoothing < 1)
        _check("betas", "two numbers in [0, 1)", self.betas, all(0 <= beta < 1 for beta in self.betas))
        _check("precision", f"one of {', '.join(PRECISIONS)}", self.precision, self.precision in PRECISIONS)
        even = self.batch % 2 == 0 or not self.mixes
        _check("batch", "an even number, since images are mixed in pairs", self.batch, even)

    @property
    def mixes(self) -> bool:
        """Flag for batches that are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def effective_batch(self, processes: int) -> int:
        """Number of images per update, of all processes."""
        return self.batch * self.accumulation * processes

    def peak_rate(self, processes: int) -> float:
        """Highest learning rate.

        Args:
            processes: Number of processes that train together.
        """
        return self.base_rate * self.effective_batch(processes) / RATE_BATCH if self.rate is None else self.rate


def _check(field: str, wanted: str, given: object, fits: bool) -> None:
    if not fits:
        raise ArgumentError(field, f"wanted {wanted}, got {given}")
