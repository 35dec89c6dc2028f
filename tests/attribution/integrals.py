"""Path integrals of a single image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from imagexplain.attribution.paths.path_integral import PathIntegral, integrate
from imagexplain.attribution.paths.quadrature import quadrature


def integral_of(
    forward: Callable[[Tensor], Tensor],
    image: Tensor,
    baseline: Tensor | None = None,
    target: int = 0,
    steps: int = 8,
    rule: str = "gauss_legendre",
    **options: Any,
) -> PathIntegral:
    """The integral from a baseline, by default zero, to one image (C, H, W), by default in one chunk."""
    baseline = torch.zeros_like(image) if baseline is None else baseline
    options.setdefault("chunk", steps)
    return integrate(
        forward, image[None], baseline[None], torch.tensor([target]), [quadrature(rule, steps)], **options
    )[0]
