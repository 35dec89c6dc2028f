"""Integrated gradients along a path of ever less blurred images: no baseline colour, only scales."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import isolated, rows_at_once, scores_of_copy
from imagexplain.attribution.paths.path_integral import Forward, score_gradients
from imagexplain.attribution.registry import Peer, Workload, register
from imagexplain.attribution.targets import Targets, check, classes_to_explain
from imagexplain.errors import ArgumentError

Score = Literal["logit", "probability"]

MOST_BYTES = 2**28
"""Largest size, in bytes, of the matrices by which images are blurred at once."""


def _blur_operations(work: Workload) -> float:
    """Operations of two blurs a step, each a product with a matrix from either side in three channels."""
    height, width = work.size
    steps: int = work.options["steps"]
    return steps * 2 * 2 * 3 * height * width * (height + width)


@register(
    family="paths",
    needs={"gradients"},
    gradient_passes=lambda work: work.options["steps"],
    operations=_blur_operations,
    speckled=True,
    peer=Peer("PAIR", "BlurIG"),
)
@isolated
def blur_ig(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    steps: int = 100,
    max_sigma: float = 50.0,
    grad_step: float = 0.01,
    sqrt: bool = False,
    chunk: int = 32,
    score: Score = "logit",
    create_graph: bool = False,
) -> Tensor:
    """Blur IG: the gradient integrated along the path on which a Gaussian blur of the image is lifted.

    map = −Σ_i (σ_{i+1} − σ_i) · ∂G_σ x/∂σ · ∇f(G_σ x) at σ = σ_i, where G_σ is the Gaussian blur; what lies beyond the
    frame counts as 0. Sums to f(x) − f(G_max x), as the steps become many and ``grad_step`` small.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        steps: Number of intervals of the path.
        max_sigma: Standard deviation of the blur at the path's start, in pixels; positive, and at most ten times the
            longer side or 100, whichever is more: a wider blur leaves no more of the image.
        grad_step: Step Δσ of the difference quotient that stands for ∂/∂σ, in pixels; positive, and at most what
            max_sigma may be.
        sqrt: Spacing of the path: σ_i = √(i · max_sigma / steps) instead of i · max_sigma / steps. The path then starts
            at √max_sigma.
        chunk: Largest number of blurred images evaluated at once.
        score: Function f to explain: the target's "logit" or its softmax "probability".
        create_graph: Maps stay differentiable, with respect to the model's parameters and to images that require a
            gradient, so that they can be part of a training loss.

    Returns:
        (B, C, H, W), signed, in units of the score.

    Raises:
        ValueError: steps or chunk below 1, a max_sigma or grad_step that is not positive or too large, an unknown
            score, or what does not fit the model.

    Source: Xu, Venugopalan, Sundararajan, CVPR 2020, arXiv 2004.03383; the kernel is scipy's, cut at 4 σ.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import blur_ig
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> blur_ig(network, rand(2, 3, 8, 8), targets=[1, 4], steps=20, max_sigma=8).shape
        torch.Size([2, 3, 8, 8])
    """
    if steps < 1:
        raise ArgumentError("steps", f"wanted at least 1, got {steps}")
    check(images, chunk)
    most = max(100, 10 * max(images.shape[2:]))  # A kernel is as long as four of its σ.
    for name, pixels in (("max_sigma", max_sigma), ("grad_step", grad_step)):
        if not pixels > 0:
            raise ArgumentError(name, f"wanted a positive number of pixels, got {pixels}")
        if pixels > most:
            raise ArgumentError(name, f"wanted at most {most} pixels for images of this size, got {pixels}")
    if score not in get_args(Score):
        raise ArgumentError("score", f"wanted one of {', '.join(get_args(Score))}, got {score!r}")
    classes = classes_to_explain(model, images, targets, chunk)
    sigmas = torch.arange(steps + 1, dtype=torch.float64, device=images.device) * (max_sigma / steps)
    if sqrt:
        sigmas = sigmas.sqrt()

    # The difference quotient takes the difference of nearly equal images: float64, whatever the model's precision.
    exact = (images if create_graph else images.detach()).double()
    total = torch.zeros_like(exact.detach())
    per_blur = 4 * exact.element_size() * sum(side**2 for side in exact.shape[2:])  # two blurs, and the kernels' copies
    chunk = max(1, min(chunk, MOST_BYTES // per_blur))
    rows = rows_at_once(len(sigmas) - 1, chunk, images)
    for sigma, width in zip(sigmas[:-1].split(rows), sigmas.diff().split(rows), strict=True):
        here, further = (_blur_matrices(values, exact.shape[2:]) for values in (sigma, sigma + grad_step))
        for b, image in enumerate(exact):
            blurred = _blur(image, *here)  # (chunk, C, H, W)
            slope = (_blur(image, *further) - blurred) / grad_step
            _, gradients = score_gradients(
                (lambda rows: scores_of_copy(model, rows).softmax(1)) if score == "probability" else model,
                blurred.to(images.dtype),
                classes[b].expand(len(blurred)),
                create_graph=create_graph,
            )
            total[b] -= (width.view(-1, 1, 1, 1) * slope * gradients).sum(0)
    return total.to(images.dtype)


def _blur(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Image (C, H, W) under S blurs, (S, C, H, W), the blurs given as the matrices (S, H, H) and (S, W, W)."""
    return rows.unsqueeze(1) @ image @ columns.mT.unsqueeze(1)


def _blur_matrices(sigmas: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    height, width = (_gaussian_matrices(sigmas, length) for length in size)
    return height, width


def _gaussian_matrices(sigmas: Tensor, length: int) -> Tensor:
    """Matrices (S, length, length): column j of matrix s is the kernel of σ_s about pixel j, cut at the frame."""
    radius = (4 * sigmas + 0.5).floor().view(-1, 1)  # as in scipy.ndimage.gaussian_filter, which truncates at 4 σ
    offsets = torch.arange(max(int(radius.max()) + 1, length), dtype=sigmas.dtype, device=sigmas.device)
    # σ = 0 has radius 0, where any width gives the kernel (1).
    kernel = torch.exp(-0.5 * (offsets / sigmas.clamp(min=1e-3).view(-1, 1)) ** 2) * (offsets <= radius)
    kernel = kernel / (kernel[:, :1] + 2 * kernel[:, 1:].sum(1, keepdim=True))
    distance = (offsets[:length, None] - offsets[None, :length]).abs().long()
    return kernel[:, distance]
