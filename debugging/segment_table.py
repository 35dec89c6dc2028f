"""The table of an error's segments: what each did to the wrong and to the right class, beside its area.

The *Shapley value* of a segment is what a score gains when the segment joins others, on average over all orders in
which segments can take the baseline's place. The *responsibility* is the wrong class's value less the right one's: the
segment's share of what moved the margin, wrong score − right score, from the baseline to the image. All segments
together have moved it as far as it went.

A share says nothing without the size that goes with it: where every pixel carries alike, a segment of 85 % of the
pixels carries 85 %. So the area stands beside it. But the Shapley value does not follow the area by itself: a segment
on which no score depends, whatever else is there, has the value 0, however large it is. Two columns more show how much
a score depends on a segment: the *directional* gradient, the attribution per unit of change (Sikdar et al. 2021), and
the fall of the score when the segment alone is replaced. Each has a blind spot that the Shapley value has not: the one
knows the path of all segments together alone, the other only images that lack one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imagexplain.attribution.groups.directional import group_scores
from imagexplain.attribution.groups.families import WHOLE, disjoint_parts, family
from imagexplain.attribution.methods.kernel_shap import kernel_shap
from imagexplain.attribution.paths.path_integral import Forward, PathIntegral

MOST_RESPONSIBLE = 3
"""Number of segments that are held responsible for one error, at most."""

RESPONSIBLE_PART = 0.5
"""Part of the largest responsibility from which a segment shares it."""

COALITIONS = 256
"""Most sets of segments, for each class, from which Shapley values are found: all that eight segments have."""

COALITIONS_SEED = 0
"""Seed by which sets are drawn where there are more."""


@dataclass(frozen=True, eq=False)
class ClassColumns:
    """Columns (G,) float64 of one class, in units of its score.

    Attributes:
        attribution: Sum of integrated gradients over the segment.
        directional: Directional gradient, the attribution by ‖Δ‖ over the segment.
        replaced: Fall of the score when the segment alone is replaced by the baseline.
        shapley: Shapley value of the segment; all together are the score less the baseline's.
    """

    attribution: Tensor
    directional: Tensor
    replaced: Tensor
    shapley: Tensor

    @property
    def positive_share(self) -> Tensor:
        """Part (G,) of all positive attribution that each segment carries; 0 where there is none."""
        positive = self.attribution.clamp_min(0)
        total = positive.sum()
        return positive / total if total > 0 else positive


@dataclass(frozen=True, eq=False)
class SegmentTable:
    """Segments of one image, and what they did to two of its classes.

    Attributes:
        labels: Names (G,) of the segments.
        masks: Masks (G, H, W), bool, over the model's input.
        wrong: Columns of the class that the model named.
        right: Columns of the class that it should have named.
    """

    labels: tuple[str, ...]
    masks: Tensor
    wrong: ClassColumns
    right: ClassColumns

    @property
    def area(self) -> Tensor:
        """Number of pixels (G,), int64."""
        return self.masks.flatten(1).sum(1)

    @property
    def area_share(self) -> Tensor:
        """Part (G,) of the image that each segment covers, float64."""
        return self.area.double() / self.masks[0].numel()

    @property
    def margin_drop(self) -> Tensor:
        """Fall (G,) of wrong score − right score when the segment alone is replaced."""
        return self.wrong.replaced - self.right.replaced

    @property
    def drive(self) -> Tensor:
        """Fall (G,) of the wrong score when the segment alone is replaced, relative to its size: by √(area share)."""
        return drive(self.wrong.replaced, self.area_share)

    @property
    def responsibility(self) -> Tensor:
        """Share (G,) of the segment in the margin wrong score − right score, less the baseline's margin."""
        return self.wrong.shapley - self.right.shapley


def drive(falls: Tensor, area_share: Tensor) -> Tensor:
    """Falls (G,) of a score relative to the segments' sizes, by √(area share).

    It is the directional gradient's finite counterpart, for ‖Δ‖ over a segment goes with the root of its area.
    """
    return falls / area_share.sqrt()


def responsible(table: SegmentTable, most: int = MOST_RESPONSIBLE, part: float = RESPONSIBLE_PART) -> list[int]:
    """Segments that moved the margin to the wrong class, the most responsible first, ties in their order.

    Args:
        table: Table of an error.
        most: Largest number of segments.
        part: Part of the largest responsibility from which a segment shares it.

    Returns:
        Indices of segments with a positive responsibility; none where there is no such segment.
    """
    values = table.responsibility.tolist()
    largest = max(values, default=0.0)
    chosen = [index for index, value in enumerate(values) if value > 0 and value >= part * largest]
    return sorted(chosen, key=lambda index: -values[index])[:most]


def table_of(
    network: Forward,
    paths: Sequence[PathIntegral],
    baseline: Tensor,
    segments: Tensor,
    labels: Sequence[str],
    classes: Sequence[int],
    chunk: int,
) -> SegmentTable:
    """The table of an image from the path integrals of its two classes.

    Shapley values are those of the disjoint parts of segments that overlap, and a segment has the sum of its parts'.

    Args:
        network: Function from (N, 3, H, W) to pre-softmax scores (N, classes).
        paths: Path integrals of the wrong and of the right class, of the same image from the same baseline.
        baseline: Baseline (3, H, W), which also replaces segments.
        segments: Masks (S, H, W), bool, which may overlap; pixels in none of them are one more segment, the rest.
        labels: Names (S,) of the segments.
        classes: Indices of the wrong and of the right class.
        chunk: Largest number of images evaluated at once.
    """
    groups = family(segments, labels)
    kept = but_whole(groups.labels)
    masks = groups.masks[kept]
    image = baseline + paths[0].difference
    falls = score_falls(network, image, baseline, masks, chunk)
    columns = []
    for path, index in zip(paths, classes, strict=True):
        scores = group_scores(path.attribution, path.difference, groups)
        values = kernel_shap(
            network,
            image[None],
            index,
            groups=groups.parts.atoms,
            baselines=baseline[None],
            samples=COALITIONS,
            seed=COALITIONS_SEED,
            chunk=chunk,
        )
        columns.append(
            ClassColumns(
                scores.attribution[kept], scores.directional[kept], falls[:, index], shapley_values(values[0], masks)
            )
        )
    return SegmentTable(tuple(groups.labels[index] for index in kept), masks, *columns)


def shapley_values(values: Tensor, masks: Tensor) -> Tensor:
    """Shapley values (G,), float64, of masks (G, H, W) from a map (1, H, W) by :func:`kernel_shap`.

    The map has the value of each disjoint part of the masks at each of its pixels.
    """
    parts = disjoint_parts(masks)
    return (parts.sums(values) / parts.area) @ parts.incidence


def but_whole(labels: Sequence[str]) -> list[int]:
    """Indices of a family's groups but for the whole image, which stays where it is the only one."""
    return [index for index, label in enumerate(labels) if label != WHOLE or len(labels) == 1]


@torch.no_grad()
def score_falls(network: Forward, image: Tensor, baseline: Tensor, masks: Tensor, chunk: int) -> Tensor:
    """Fall (G, classes), float64, of every score when the pixels of one mask (G, H, W) alone become the baseline's."""
    scores = network(image.unsqueeze(0)).double()
    without = [
        network(torch.where(rows.unsqueeze(1), baseline, image)).double() for rows in masks.split(chunk)
    ]  # (chunk, 3, H, W) each
    return scores - torch.cat(without)


def entropy(scores: Tensor) -> Tensor:
    """Entropy (B,), nats, float64, of the probabilities of pre-softmax scores (B, classes)."""
    logarithms = scores.double().log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1)
