"""LIME on segments: a linear model of the score by which groups are present, fitted near the image.

A group is absent where its pixels show the baseline, in all channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from imagexplain.attribution.coalitions import MOST_MEMBERS, check_groups, coalition_scores
from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values, numbered
from imagexplain.attribution.registry import Peer, Workload, register
from imagexplain.attribution.targets import Targets, check, classes_to_explain
from imagexplain.errors import ArgumentError

Scores = Literal["probabilities", "logits"]

RANK = 1e-11
"""Singular values of the regression, beside the largest, that count as none."""


def _regression_operations(work: Workload) -> float:
    """Operations of the least squares of as many equations as coalitions and groups."""
    return work.draws * 4 * (work.options["samples"] + work.groups) * work.groups**2


@register(
    family="perturbation",
    forward_passes=lambda work: work.options["samples"] * work.draws,
    operations=_regression_operations,
    peer=Peer("Captum", "Lime", "draws differ, and Captum fits a lasso by the cosine of images"),
    least={"samples": 2},
    most_groups=lambda options: MOST_MEMBERS // options["samples"],
)
@isolated
def lime(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    groups: Tensor,
    baselines: float | Tensor | None = None,
    samples: int = 256,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    scores: Scores = "probabilities",
    seed: int = 0,
    chunk: int = 64,
) -> Tensor:
    """LIME: coefficient of each group, at each of its pixels, in a ridge regression of the score on what is present.

    The image itself and coalitions in which each group is present by the toss of a coin are evaluated. The coefficients
    φ and an intercept b minimise Σ π(z) (f(z) − b − φ·z)² + λ‖φ‖² with λ = ``ridge`` and the weights
    π = exp(−d² / 2w²), d = 1 − √(groups present / groups), the cosine distance from the image.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        groups: Group numbers (B, H, W) or, for all images, (H, W), int64: pixels of equal number are a group. Any
            numbers will do.
        baselines: Values of absent pixels: a number, a tensor that broadcasts to (B, C, H, W), or None for 0. The
            authors' code takes each group's mean colour.
        samples: Number of coalitions evaluated for each image, at least 2, the image among them. Coalitions times
            groups are at most 20 million.
        kernel_width: Width w of the weights; the larger it is, the more alike they are.
        ridge: Weight λ of the coefficients' squares, at least 0. With 0, and more groups than coalitions, the
            coefficients are those of least norm.
        scores: Scores to fit: "probabilities" for the softmax, as in the authors' code, "logits" for the score itself.
        seed: Seed of each image's own generator; images with equally many groups share their coalitions.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score. The values need not sum to a difference of scores.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Ribeiro, Singh, Guestrin 2016, "Why Should I Trust You?", arXiv 1602.04938, equations 1 and 2; weights and
    draws as in the authors' ``lime_image``.

    Example:
        >>> from torch import arange, nn, rand
        >>> from imagexplain import lime
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> halves = (arange(8) // 4).expand(8, 8)  # the left and the right half
        >>> maps = lime(network, rand(2, 3, 8, 8), targets=3, groups=halves, samples=20)
        >>> maps.shape, len(maps[0].unique())
        (torch.Size([2, 1, 8, 8]), 2)
    """
    if samples < 2:
        raise ArgumentError("samples", f"wanted at least 2, got {samples}")
    if not 0 < kernel_width < float("inf"):
        raise ArgumentError("kernel_width", f"wanted a number above 0, got {kernel_width}")
    if not 0 <= ridge < float("inf"):
        raise ArgumentError("ridge", f"wanted a number of at least 0, got {ridge}")
    if scores not in ("probabilities", "logits"):
        raise ArgumentError("scores", f"wanted probabilities or logits, got {scores!r}")
    check(images, chunk)
    absent, numbers = fill_values("baselines", baselines, images), numbered(groups, images)
    check_groups(numbers, MOST_MEMBERS // samples, f" with samples={samples}")
    classes = classes_to_explain(model, images, targets, chunk)
    maps = torch.empty(numbers.shape, dtype=torch.promote_types(images.dtype, torch.float32), device=images.device)
    for b, number in enumerate(numbers):
        coalitions = _coalitions(int(number.max()) + 1, samples, seed)
        parts, of_softmax = coalitions.split(rows_at_once(len(coalitions), chunk, images)), scores == "probabilities"
        found = coalition_scores(model, images[b], absent[b], number, classes[b], parts, probabilities=of_softmax)
        maps[b] = _coefficients(coalitions, found, kernel_width, ridge).to(maps)[number]
    return maps.unsqueeze(1)


def _coalitions(groups: int, samples: int, seed: int) -> Tensor:
    """Coalitions (samples, groups), bool, the first of them of all groups."""
    generator = torch.Generator().manual_seed(seed)
    members = torch.randint(2, (samples, groups), generator=generator).bool()
    members[0] = True
    return members


def _coefficients(coalitions: Tensor, scores: Tensor, kernel_width: float, ridge: float) -> Tensor:
    """Coefficients (G,) of the weighted ridge regression, whose intercept is not in the penalty."""
    groups = coalitions.shape[1]
    if not scores.isfinite().all():
        return torch.full((groups,), torch.nan, dtype=torch.float64)
    members = coalitions.double()
    distance = 1 - members.mean(1).sqrt()
    weights = torch.exp(-((distance / kernel_width) ** 2) / 2)
    share = weights / weights.sum()
    centred, offset = members - share @ members, scores - share @ scores
    root = weights.sqrt().unsqueeze(1)
    system = torch.cat([root * centred, ridge**0.5 * torch.eye(groups, dtype=torch.float64)])
    right = torch.cat([root * offset.unsqueeze(1), torch.zeros(groups, 1, dtype=torch.float64)])
    return torch.linalg.lstsq(system, right, rcond=RANK, driver="gelsd").solution.squeeze(1)
