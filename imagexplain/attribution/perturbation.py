"""What stands for a part of the image that is absent."""

from __future__ import annotations

import torch
from torch import Tensor


def expanded(name: str, values: float | Tensor | None, images: Tensor) -> Tensor:
    """What stands for absence, as (B, C, H, W) like the images: a number, a tensor that broadcasts, or None for 0.

    Raises:
        ValueError: a shape that does not broadcast.
    """
    given = torch.as_tensor(0.0 if values is None else values).detach().to(images)
    try:
        return given.expand_as(images)
    except RuntimeError:
        raise ValueError(f"{name}: wanted a number or {tuple(images.shape)}, got {tuple(given.shape)}") from None
