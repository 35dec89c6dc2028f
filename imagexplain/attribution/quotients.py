"""Quotients of parts and wholes, of which a whole may be 0."""

from __future__ import annotations

import torch
from torch import Tensor


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is 0 where the denominator is 0; its derivative there is 0 too, not NaN."""
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, denominator))
