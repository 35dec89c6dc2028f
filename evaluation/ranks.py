"""Spearman's rank correlation."""

from __future__ import annotations

import torch
from torch import Tensor


def spearman(first: Tensor, second: Tensor) -> float:
    """The correlation of the ranks of two sets of scores (G,), −1 … 1; ties share their mean rank.

    0 where either is constant: it orders nothing.

    Source: Spearman, "The Proof and Measurement of Association between Two Things", 1904.
    """
    ranks = torch.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(1, keepdim=True)
    norms = centred.norm(dim=1)
    return float(centred[0] @ centred[1] / norms.prod()) if norms.prod() > 0 else 0.0


def _ranks(scores: Tensor) -> Tensor:
    """(G,) float64 ranks from 1 up; the mean rank where scores are equal."""
    _, which, ties = scores.unique(return_inverse=True, return_counts=True)
    return (ties.cumsum(0) - (ties - 1) / 2).double()[which]
