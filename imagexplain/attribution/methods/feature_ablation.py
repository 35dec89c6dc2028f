"""Ablation of groups of pixels one by one.

A group is absent where its pixels show the baseline, in all channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import class_scores, isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values, numbered
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check, check_classes, classes_to_explain


@register(
    family="perturbation", forward_passes=lambda work: work.groups * work.draws, peer=Peer("Captum", "FeatureAblation")
)
@isolated
def feature_ablation(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    groups: Tensor,
    baselines: float | Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """Drop of the score when one group alone is absent, at each of its pixels. Captum's ``FeatureAblation``.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        groups: Group numbers (B, H, W) or, for all images, (H, W), int64: pixels of equal number are a group. Any
            numbers will do.
        baselines: Values of absent pixels: a number, a tensor that broadcasts to (B, C, H, W), or None for 0.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Example:
        >>> from torch import arange, nn, rand
        >>> from imagexplain import feature_ablation
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> halves = (arange(8) // 4).expand(8, 8)  # the left and the right half
        >>> maps = feature_ablation(network, rand(1, 3, 8, 8), targets=3, groups=halves)
        >>> maps.shape, len(maps.unique())
        (torch.Size([1, 1, 8, 8]), 2)
    """
    from captum.attr import FeatureAblation  # takes seconds

    check(images, chunk)
    absent, numbers = fill_values("baselines", baselines, images), numbered(groups, images)
    classes = classes_to_explain(model, images, targets, chunk)

    def scores_of(rows: Tensor) -> Tensor:
        scores = class_scores(model, rows)
        check_classes(scores, classes)
        return scores

    chunk = rows_at_once(len(images) * int(numbers.max() + 1), chunk, images) if numbers.numel() else chunk
    parts = (tensor.split(chunk) for tensor in (images.detach(), absent, numbers.unsqueeze(1), classes))
    maps = [
        FeatureAblation(scores_of).attribute(
            rows, baselines=baseline, target=wanted, feature_mask=mask, perturbations_per_eval=chunk // len(rows)
        )
        for rows, baseline, mask, wanted in zip(*parts, strict=True)
    ]
    return torch.cat(maps)[:, :1]  # all channels share their group
