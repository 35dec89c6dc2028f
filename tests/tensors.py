"""The tensors in an answer."""

from __future__ import annotations

import gzip
import io
from typing import Any

import torch

LEGACY_SHAPES = {
    "integrated_grads": (1, 3, 32, 32),
    "integrated_directional_grads": (50, 3, 32, 32),
    "step_sizes": (50, 1),
    "intermediates": (50, 3, 32, 32),
    "output": (1, 10),
}
"""Of the answers that the original clients get."""


def unpacked(body: bytes) -> dict[str, Any]:
    """The content of a body of ``application/gzip``."""
    content: dict[str, Any] = torch.load(io.BytesIO(gzip.decompress(body)), weights_only=True)
    return content
