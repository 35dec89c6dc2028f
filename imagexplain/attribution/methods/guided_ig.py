"""Guided IG: integrated gradients along a path that the model chooses: what changes the score least goes first."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.paths.path_integral import Forward, check_ends, score_gradients
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check_images, classes_to_explain
from imagexplain.errors import ArgumentError

TOLERANCE = 1e-9
"""Part of a path's length below which what is left of a step's budget counts as spent."""

ROUNDS = 4
"""Groups of a step that are looked for one by one, before all values are ranked: a ranking costs ten such rounds."""


@register(
    family="paths",
    needs={"gradients"},
    gradient_passes=lambda work: work.options["steps"] * work.draws,
    speckled=True,
    peer=Peer("PAIR", "GuidedIG", double=True),
)
@isolated
def guided_ig(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    baselines: Tensor | None = None,
    steps: int = 128,
    fraction: float = 0.25,
    max_dist: float = 0.02,
) -> Tensor:
    """Guided IG: the gradient integrated along a path that avoids the directions of large gradients.

    The path is held as one α in [0, 1] for each value, at b + α(x − b). Each step has 1/steps of the L1 distance to go,
    spends it on the values of lowest |gradient|, and keeps each within ``max_dist`` of the straight path.

    Args:
        model: Module or function from (B, C, H, W) to pre-softmax scores (B, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        baselines: Starting points (B, C, H, W) of the paths; zeros by default.
        steps: Number of gradients taken of each image, one after the other, and one image after the other.
        fraction: Fraction of an image's values that are moved at once, those of the lowest |gradient|; 0..1.
        max_dist: Largest distance of a value's α from the straight path's; 0..1. With 0 the path is straight, and the
            result is integrated gradients by the left rule.

    Returns:
        (B, C, H, W), signed, in units of the score.

    Raises:
        ValueError: steps below 1, a fraction or max_dist outside 0..1, or what does not fit the model.

    Source: Kapishnikov et al., CVPR 2021, arXiv 2106.09788.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import guided_ig, integrated_gradients
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> straight = integrated_gradients(network, images, 1, rule="left", steps=16)
        >>> allclose(guided_ig(network, images, 1, steps=16, max_dist=0), straight, atol=1e-5)
        True
    """
    if steps < 1:
        raise ArgumentError("steps", f"wanted at least 1, got {steps}")
    for name, share in (("fraction", fraction), ("max_dist", max_dist)):
        if not 0 <= share <= 1:
            raise ArgumentError(name, f"wanted 0..1, got {share}")
    check_images(images)
    begin = torch.zeros_like(images) if baselines is None else baselines.detach()
    check_ends(images, begin)
    classes = classes_to_explain(model, images, targets, max(1, len(images)))

    # One image at a time: which values rank lowest is a choice that the rounding of a batched kernel would tip.
    rows = zip(images.detach().split(1), begin.split(1), classes.split(1), strict=True)
    maps = [_along(model, image, start, kind, steps, fraction, max_dist) for image, start, kind in rows]
    return torch.cat(maps).to(images.dtype)


def _along(
    model: Forward, image: Tensor, begin: Tensor, kind: Tensor, steps: int, fraction: float, max_dist: float
) -> Tensor:
    """Map of one path, (1, C, H, W) float64."""
    # float32 sums of a hundred thousand distances cannot tell when a budget is spent.
    start = begin.double()
    difference = (image.double() - start).flatten(1)  # (1, N)
    length = difference.abs()
    total = length.sum(1, keepdim=True)
    # What does not differ has arrived, so that it is never chosen.
    alpha = (difference == 0).double()
    mean_gradient = torch.zeros_like(alpha)
    for step in range(1, steps + 1):
        points = (start + (alpha * difference).view_as(start)).to(image.dtype)
        gradients = score_gradients(model, points, kind)[1].flatten(1)
        moved = _advance(alpha, gradients.abs(), length, total, step / steps, fraction, max_dist)
        mean_gradient += (moved - alpha) * gradients
        alpha = moved
    return (difference * mean_gradient).view_as(image)


def _advance(
    alpha: Tensor, size: Tensor, length: Tensor, total: Tensor, straight: float, fraction: float, max_dist: float
) -> Tensor:
    """Move each path (B, N) on until its L1 distance to the end is that of the straight path at α = ``straight``.

    Args:
        alpha: Positions α of the values on the paths, (B, N).
        size: Size |gradient| there, (B, N).
        length: Distances |x − b|, (B, N).
        total: Sums of the distances, (B, 1).
    """
    low, high = max(straight - max_dist, 0.0), min(straight + max_dist, 1.0)
    alpha = alpha.clamp(min=low)
    lowest = math.floor(fraction * (alpha.shape[1] - 1)) + 1
    for _ in range(ROUNDS):
        excess = (length * (1 - alpha)).sum(1, keepdim=True) - total * (1 - straight)
        going = (alpha < high) & (excess > TOLERANCE * total)
        if not going.any():
            return alpha
        ranked = size.where(going, math.inf)
        chosen = going & (ranked <= ranked.kthvalue(lowest, dim=1, keepdim=True).values)
        gain = (length * (high - alpha)).where(chosen, 0.0).sum(1, keepdim=True)
        # lerp meets `high` exactly at weight 1.
        weight = (excess / gain).clamp(max=1.0).where(chosen, 0.0)
        alpha = torch.lerp(alpha, torch.full_like(alpha, high), weight)
    return _advance_by_rank(alpha, size, length, total, straight, high, lowest)


def _advance_by_rank(
    alpha: Tensor, size: Tensor, length: Tensor, total: Tensor, straight: float, high: float, lowest: int
) -> Tensor:
    """Rest of :func:`_advance`, however many groups it takes: all are found at once, from the values' ranking."""
    excess = (length * (1 - alpha)).sum(1, keepdim=True) - total * (1 - straight)
    free = alpha < high
    ranked, order = size.where(free, math.inf).sort(dim=1)
    starts, ends = _groups(ranked, lowest)
    gains = (length * (high - alpha)).where(free, 0.0).gather(1, order)
    spent = F.pad(gains.cumsum(1), (1, 0))  # (B, N + 1) by all that rank lower, were they moved up to `high`
    before = spent.gather(1, starts)
    left = excess - before
    # Sums added up in parallel may fall by a rounding error: such a group costs nothing and is moved all the way.
    weight = left / (spent.gather(1, ends) - before).clamp(min=0.0)
    weight = weight.clamp(max=1.0).where(left > TOLERANCE * total, 0.0)
    weight = torch.empty_like(weight).scatter_(1, order, weight).where(free, 0.0)
    return torch.lerp(alpha, torch.full_like(alpha, high), weight)


def _groups(ranked: Tensor, lowest: int) -> tuple[Tensor, Tensor]:
    """First position of each value's group, and the one after its last, (B, N) twice.

    A group is the ``lowest`` first of those that are left in each row of ``ranked`` (B, N), and all that equal its
    last. Where one begins depends on all before it: they are found from the first one on, twice as many each time.
    """
    rows, count = ranked.shape
    positions = torch.arange(count, device=ranked.device)
    # At each position: where the group ends that would begin there. Past the end, it stays.
    ends = torch.searchsorted(ranked, ranked, right=True)[:, (positions + lowest - 1).clamp(max=count - 1)]
    jump = F.pad(ends, (0, 1), value=count)
    begins = torch.zeros(rows, count + 1, dtype=torch.bool, device=ranked.device)
    begins[:, 0] = True
    for _ in range(math.ceil(count / lowest).bit_length()):
        begins.scatter_(1, jump.where(begins, count), True)
        jump = jump.gather(1, jump)
    starts = positions.where(begins[:, :-1], 0).cummax(1).values
    return starts, ends.gather(1, starts)
