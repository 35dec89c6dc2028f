"""Absence of a part of the image: the values that stand for it, and the groups of pixels that are absent together."""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.errors import ArgumentError


def fill_values(name: str, values: float | Tensor | None, images: Tensor) -> Tensor:
    """Values of absent pixels, (B, C, H, W) like the images: from a number, a tensor that broadcasts, or None for 0.

    Raises:
        ValueError: a shape that does not broadcast.
    """
    given = torch.as_tensor(0.0 if values is None else values).detach().to(images)
    try:
        return given.expand_as(images)
    except RuntimeError:
        raise ArgumentError(name, f"wanted a number or {tuple(images.shape)}, got {tuple(given.shape)}") from None


def numbered(groups: Tensor, images: Tensor) -> Tensor:
    """Group numbers (B, H, W), int64 on the images' device, each image's groups numbered from 0 without gaps."""
    wanted = (len(images), *images.shape[2:])
    if groups.dtype != torch.int64 or groups.shape not in (wanted, wanted[1:]):
        raise ArgumentError(
            "groups", f"wanted int64 {wanted} or {wanted[1:]}, got {groups.dtype} {tuple(groups.shape)}"
        )
    each = groups.to(images.device).expand(wanted)
    return torch.stack([number.unique(return_inverse=True)[1] for number in each])
