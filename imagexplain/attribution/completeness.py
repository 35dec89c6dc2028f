"""Completeness: a method's parts make up the score, but for rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_SHARE = 1e-5
"""Share of a score that may be missing from its parts before the model counts as one that the method does not cover."""

ROUNDINGS = 16
"""Units in the last place of the parts' sizes that summing and differentiating lose at most; up to 10 were seen."""


def missing_share(whole: Tensor, parts: Sequence[Tensor], terms: Sequence[Tensor] = ()) -> Tensor:
    """Share (B,) of each image's score that its parts do not make up, beyond rounding.

    It is relative to the sum of the parts' sizes and the score's. Rounding grows with what is summed, element by
    element, of which most may cancel; a fault does not.

    Args:
        whole: Sums (B,) that the parts should have.
        parts: Parts of the score, each (B, …), all of one size in the sum.
        terms: Terms (B,) of which ``whole`` is the difference, where it is one.
    """
    totals = [part.flatten(1).sum(1, dtype=torch.float64) for part in parts]
    # norm() would take half as long again.
    sizes = sum(part.flatten(1).abs().sum(1, dtype=torch.float64) for part in parts) + sum(map(torch.abs, terms))
    residual = (whole - sum(totals)).abs() - ROUNDINGS * torch.finfo(whole.dtype).eps * sizes
    scale = (sum(map(torch.abs, totals)) + whole.abs()).clamp_min(torch.finfo(whole.dtype).tiny)
    return (residual.clamp_min(0) / scale).where(whole.isfinite(), 0)  # of a score that is NaN nothing can be missing
