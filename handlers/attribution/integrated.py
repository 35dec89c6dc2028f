"""Integrated gradients of a batch as maps; :mod:`handlers.attribution.path` has all else that the pass tells."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.attribution.path import Forward, integrate
from handlers.attribution.quadrature import quadrature
from handlers.attribution.targets import Targets, classes_and_scores


def integrated_gradients(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    baselines: Tensor | None = None,
    steps: int = 50,
    rule: str = "gauss_legendre",
    chunk: int = 32,
) -> Tensor:
    """Difference from a baseline times the mean gradient on the straight path from it.

    Args:
        model: maps (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the others.
        images: (B, C, H, W) in model-input space.
        targets: see :data:`~handlers.attribution.targets.Targets`.
        baselines: (B, C, H, W) where the paths begin; zeros by default.
        steps: path points of each image, at least 1.
        rule: of the quadrature, a key of :data:`~handlers.attribution.quadrature.RULES`.
        chunk: path points evaluated at once, at most.

    Returns:
        (B, C, H, W), signed, in units of the score; sums to f(x) − f(b) but for the quadrature's error.

    Raises:
        ValueError: arguments that do not fit, by name.

    Source: Sundararajan, Taly, Yan 2017, arXiv 1703.01365, equation 1.
    """
    classes, _ = classes_and_scores(model, images, targets, chunk)
    begin = torch.zeros_like(images) if baselines is None else baselines
    rules = [quadrature(rule, steps)] * len(images)
    integrals = integrate(model, images.detach(), begin.detach(), classes, rules, chunk=chunk)
    return torch.stack([integral.attribution for integral in integrals]).to(images.dtype)
