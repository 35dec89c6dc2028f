"""Attributions compared with those of another implementation."""

from __future__ import annotations

from torch import Tensor


def close(ours: Tensor, theirs: Tensor, limit: float = 1e-10) -> bool:
    """No difference above ``limit``, relative to the largest of their values."""
    return bool((ours - theirs).abs().max() <= limit * theirs.abs().max())
