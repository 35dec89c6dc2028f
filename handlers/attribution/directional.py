"""Integrated directional gradients of groups of pixels (Sikdar, Bhattacharya, Heese, ACL-IJCNLP 2021).

The directional gradient of a group is the gradient along the group's own part of Δ, integrated over the whole path. Its
integral needs no pass of its own: with integrated gradients IG = Δ ⊙ ḡ it is a sum over the group, divided by a norm.
"""

from __future__ import annotations

import torch
from torch import Tensor


def directional_gradients(attribution: Tensor, difference: Tensor, segments: Tensor) -> Tensor:
    """IDG(S) = Σ_{p∈S} IG_p / ‖Δ_S‖ for every segment S of a partition, 0 where ‖Δ_S‖ = 0.

    Args:
        attribution: (C, H, W) integrated gradients.
        difference: (C, H, W) Δ = input − baseline, in model-input space.
        segments: (H, W) int64 labels 0 … G−1; a segment holds its pixels in every channel.

    Returns:
        (G,) signed directional gradients in units of the score per unit of Δ, float64.

    Raises:
        ValueError: segments of another size than the attribution, or negative labels.

    Source: the definition of IDG in the paper, through the identity ∫∇f·Δ_S/‖Δ_S‖ dα = Σ_{p∈S} IG_p / ‖Δ_S‖.
    """
    if segments.shape != attribution.shape[1:]:
        raise ValueError(f"segments: wanted {tuple(attribution.shape[1:])}, got {tuple(segments.shape)}")
    if segments.numel() and segments.min() < 0:
        raise ValueError(f"segments: wanted labels from 0, got {segments.min().item()}")
    labels = segments.flatten()
    shares = torch.bincount(labels, attribution.double().sum(0).flatten())
    norms = torch.bincount(labels, difference.double().square().sum(0).flatten()).sqrt()
    return torch.where(norms > 0, shares / norms, 0.0)
