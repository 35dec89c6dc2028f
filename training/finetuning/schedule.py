"""Learning rate over the epochs."""

from __future__ import annotations

from math import cos, pi


def rate_at(epoch: float, *, peak: float, lowest: float, warmup: float, epochs: float) -> float:
    """Learning rate at a moment of the training, before any layer's own factor.

    It rises linearly from 0 and falls by half a cosine: the very first update has rate 0.

    Args:
        epoch: Number of epochs that are over, as a fraction.
        peak: Rate at the end of the warm-up.
        lowest: Rate at the end.
        warmup: Number of epochs of the warm-up.
        epochs: Number of all epochs, more than those of the warm-up.

    Source: ``util/lr_sched.py`` of https://github.com/facebookresearch/mae.

    Example:
        >>> [round(rate_at(epoch, peak=2.0, lowest=0.0, warmup=1, epochs=3), 3) for epoch in (0, 0.5, 1, 2, 3)]
        [0.0, 1.0, 2.0, 1.0, 0.0]
    """
    if epoch < warmup:
        return peak * epoch / warmup
    return lowest + (peak - lowest) * 0.5 * (1 + cos(pi * (epoch - warmup) / (epochs - warmup)))
