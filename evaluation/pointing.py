"""The pointing game and relevance mass accuracy: an explanation's top, and its mass, in the deciding object."""

from __future__ import annotations

import torch
from torch import Tensor


def pointing_game(scores: Tensor, inside: Tensor, among: Tensor | None = None) -> float:
    """The hit of the top group: 1 where it lies mostly in the deciding object, else 0. Higher is better.

    Of groups that tie for the top, the part that does: what a fair draw among them would hit.

    Args:
        scores: Scores (G,) of the groups; of a map, every pixel is a group.
        inside: Part (G,) of each group that lies in the deciding object.
        among: Groups (G,) bool that may be named; by default all.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", arXiv 1608.00507, with groups for pixels
    and without its margin of 15 pixels.
    """
    allowed = torch.ones_like(scores, dtype=torch.bool) if among is None else among
    top = allowed & (scores == scores[allowed].max())
    return (inside[top] > 0.5).double().mean().item()


def relevance_mass_accuracy(scores: Tensor, inside: Tensor) -> float:
    """The part of the positive scores that lies in the deciding object. Higher is better, 0 … 1.

    Σ max(s_g, 0) · inside_g / Σ max(s_g, 0): a group that lies partly inside counts with that part. 0 where no score is
    positive. For a pixel map, every pixel is a group and `inside` is the object's mask.

    Args:
        scores: Scores (G,) of the groups.
        inside: Part (G,) of each group that lies in the deciding object.

    Source: Arras, Osman, Samek, "CLEVR-XAI", arXiv 2003.07258.
    """
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return (positive * inside.double()).sum().item() / total if total > 0 else 0.0
