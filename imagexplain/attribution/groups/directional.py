"""Integrated directional gradients of groups of pixels, their dividends and values.

Sikdar, Bhattacharya, Heese, "Integrated Directional Gradients: Feature Interaction Attribution for Neural NLP Models",
ACL-IJCNLP 2021. (Integrated *Decision* Gradients and IDGI are other methods.)

The directional gradient of a group is the gradient along the group's own part of Δ, integrated over the whole path. Its
integral needs no pass of its own: with integrated gradients IG = Δ ⊙ ḡ it is a sum over the group, divided by a norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imagexplain.attribution.groups.families import Family, containment
from imagexplain.errors import ArgumentError


@dataclass(frozen=True)
class GroupScores:
    """Scores of a family's groups; tensors are (G,), float64 unless said otherwise.

    ``attribution`` and ``directional`` of a group depend on nothing but the group. ``dividend`` and ``value`` are
    relative to the family: one more group changes them all.

    Attributes:
        attribution: Attribution ig_S, the signed part of the score that the group carries; adds up over disjoint
            groups.
        directional: Directional gradient IDG(S) = ig_S / ‖Δ_S‖, signed, in units of the score per unit of Δ; 0 where
            ‖Δ_S‖ = 0.
        dividend: Dividend d(S) = |IDG(S)| / Σ_T |IDG(T)|, in [0, 1]; all 0 where the sum is 0.
        value: Value v(S), the sum of the dividends of the groups within S, itself included, in [0, 1].
        area: Number of pixels, int64.
        norm: Norm ‖Δ_S‖ of the difference from the baseline within the group.
        attribution_spread: Standard deviation of ig_S over the draws of the baseline, 0 for a single one.
        directional_spread: Standard deviation of IDG(S), likewise.
        pixel_dividend: Dividend (H, W) of each single pixel where these belong to the family, else None; 0 for a pixel
            that is a group of its own.
    """

    attribution: Tensor
    directional: Tensor
    dividend: Tensor
    value: Tensor
    area: Tensor
    norm: Tensor
    attribution_spread: Tensor
    directional_spread: Tensor
    pixel_dividend: Tensor | None = None


def group_scores(attribution: Tensor, difference: Tensor, family: Family) -> GroupScores:
    """Compute the table of a family's groups from integrated gradients.

    Args:
        attribution: Integrated gradients (C, H, W), or (D, C, H, W) for D draws of the baseline.
        difference: Difference Δ = input − baseline in model-input space, shaped like the attribution.
        family: Family of groups over H × W, on the CPU.

    Returns:
        Scores on the CPU. Over draws, attribution, directional and norm are means (a mean of ratios, not a ratio of
        means); dividend and value follow from the mean directional gradients.

    Raises:
        ValueError: shapes that do not match.

    Source: the definitions of the paper, through the identity ∫∇f·Δ_S/‖Δ_S‖ dα = Σ_{p∈S} IG_p / ‖Δ_S‖.

    Example:
        >>> from torch import arange, ones
        >>> from imagexplain.attribution.groups.directional import group_scores
        >>> from imagexplain.attribution.groups.families import family
        >>> left = (arange(8) < 4).expand(1, 8, 8)
        >>> scores = group_scores(ones(3, 8, 8), ones(3, 8, 8), family(left, ["left"]))
        >>> scores.attribution, scores.dividend.sum().item()
        (tensor([ 96.,  96., 192.], dtype=torch.float64), 1.0)
    """
    if attribution.shape != difference.shape or attribution.ndim not in (3, 4):
        given = f"{tuple(attribution.shape)} and {tuple(difference.shape)}"
        raise ArgumentError("attribution, difference", f"wanted the same (C, H, W) or (D, C, H, W), got {given}")
    if family.masks.shape[1:] != attribution.shape[-2:]:
        raise ArgumentError(
            "family", f"wanted masks of {tuple(attribution.shape[-2:])}, got {tuple(family.masks.shape[1:])}"
        )
    attribution, difference = _per_draw(attribution), _per_draw(difference)
    incidence = family.parts.incidence
    shares, squares = (family.parts.sums(torch.cat([attribution, difference.square()])) @ incidence).chunk(2)  # (D, G)
    pixels = None
    if family.pixels:
        pixels = directional(attribution.sum(1), difference.square().sum(1).sqrt()).mean(0)
        pixels[family.masks[family.area == 1].any(0)] = 0  # a segment of one pixel is that pixel already
    return _scores(shares, squares.sqrt(), family, pixels)


def scores_of_values(values: Tensor, difference: Tensor, family: Family) -> GroupScores:
    """Compute the table of a family's groups from values of its disjoint parts, such as Shapley values.

    Args:
        values: Value (P,) of each part, which adds up.
        difference: Difference Δ = input − baseline (C, H, W), or (D, C, H, W) for D draws of the baseline, of which the
            values are the mean: the directional gradient is then the mean of theirs by each draw's norm.
        family: Family of groups over H × W, without pixels.
    """
    norms = group_norms(_per_draw(difference), family)
    return _scores((values.double() @ family.parts.incidence).expand_as(norms), norms, family)


def _scores(shares: Tensor, norms: Tensor, family: Family, pixels: Tensor | None = None) -> GroupScores:
    """Scores of groups from their attributions and norms (D, G) in each draw, and the pixels' gradients (H, W)."""
    draws = torch.stack([shares, directional(shares, norms), norms])  # (3, D, G)
    spreads, means = torch.std_mean(draws, 1, correction=0)
    attribution, mean, norm = means
    total = mean.abs().sum() + (0.0 if pixels is None else pixels.abs().sum())
    normaliser = total if total > 0 else 1.0
    dividend = mean.abs() / normaliser
    pixel_dividend = None if pixels is None else pixels.abs() / normaliser
    value = containment(family).double() @ dividend
    if pixel_dividend is not None:
        value += family.parts.sums(pixel_dividend.unsqueeze(0)) @ family.parts.incidence
    return GroupScores(
        attribution=attribution,
        directional=mean,
        dividend=dividend,
        value=value,
        area=family.area,
        norm=norm,
        attribution_spread=spreads[0],
        directional_spread=spreads[1],
        pixel_dividend=pixel_dividend,
    )


def directional(shares: Tensor, norms: Tensor) -> Tensor:
    """Directional gradient IDG(S) = ig_S / ‖Δ_S‖; 0 where the norm is 0, that is, for a group equal to the baseline."""
    return torch.where(norms > 0, shares / norms, 0.0)


def group_norms(difference: Tensor, family: Family) -> Tensor:
    """Norms ‖Δ_S‖ of a family's groups: (G,) float64 on the CPU from (C, H, W), (D, G) from (D, C, H, W)."""
    return (family.parts.sums(difference.to("cpu", torch.float64).square()) @ family.parts.incidence).sqrt()


def directional_gradients(attribution: Tensor, difference: Tensor, segments: Tensor) -> Tensor:
    """Directional gradient IDG(S) of every segment S of a partition, signed, in units of the score per unit of Δ.

    Args:
        attribution: Integrated gradients (C, H, W).
        difference: Difference Δ = input − baseline (C, H, W), in model-input space.
        segments: Labels (H, W), int64, 0 … G−1; a segment holds its pixels in every channel.

    Returns:
        (G,) float64; 0 where ‖Δ_S‖ = 0.

    Raises:
        ValueError: segments of another size than the attribution, or negative labels.
    """
    if segments.shape != attribution.shape[1:]:
        raise ArgumentError("segments", f"wanted {tuple(attribution.shape[1:])}, got {tuple(segments.shape)}")
    if segments.numel() and segments.min() < 0:
        raise ArgumentError("segments", f"wanted labels from 0, got {segments.min().item()}")
    labels = segments.flatten()
    shares = torch.bincount(labels, attribution.double().sum(0).flatten())
    norms = torch.bincount(labels, difference.double().square().sum(0).flatten()).sqrt()
    return directional(shares, norms)


def _per_draw(values: Tensor) -> Tensor:
    """Attributions as (D, C, H, W) float64 on the CPU."""
    values = values.to("cpu", torch.float64)
    return values if values.ndim == 4 else values.unsqueeze(0)
