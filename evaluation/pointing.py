"""Whether an explanation points at the deciding object: its top group, and where its mass lies."""

from __future__ import annotations

import torch
from torch import Tensor


def hit(scores: Tensor, inside: Tensor, among: Tensor | None = None) -> float:
    """Whether the group with the highest score lies mostly in the deciding object. Higher is better, 0 … 1.

    Of groups that tie for the top, the part that does: what a fair draw among them would hit.

    Args:
        scores: (G,).
        inside: (G,) the part of each group that lies in the deciding object.
        among: (G,) bool, the groups that may be named; by default all.
    """
    allowed = torch.ones_like(scores, dtype=torch.bool) if among is None else among
    top = allowed & (scores == scores[allowed].max())
    return (inside[top] > 0.5).double().mean().item()


def mass(scores: Tensor, inside: Tensor) -> float:
    """The part of the positive scores that lies in the deciding object. Higher is better, 0 … 1.

    Σ max(s_g, 0) · inside_g / Σ max(s_g, 0): a group that lies partly inside counts with that part. 0 where no score is
    positive. For a pixel map, every pixel is a group and `inside` is the object's mask.
    """
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return (positive * inside.double()).sum().item() / total if total > 0 else 0.0
