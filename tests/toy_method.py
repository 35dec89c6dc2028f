"""A method in one file, as anyone may add one: a plain function, and what is known of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.network.forward import class_scores, isolated
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, classes_and_scores, target_scores
from imagexplain.errors import ArgumentError, UnsupportedModelError


@register(
    family="perturbation",
    needs={"module"},
    forward_passes=lambda work: work.options["levels"] * work.draws,
    operations=lambda work: work.options["levels"] * work.size[0] * work.size[1],
    coarse=True,
)
@isolated
@torch.no_grad()
def fading(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    levels: int = 4,
    baselines: Tensor | None = None,
    chunk: int = 32,
) -> Tensor:
    """Difference from the baseline, times the score's mean loss while the image fades.

    Args:
        model: Module that turns (B, C, H, W) into scores (B, classes).
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        levels: Number of faded images.
        baselines: Images (B, C, H, W) to fade to; None for zeros.
        chunk: Number of images evaluated at once.

    Returns:
        (B, 1, H, W), at least 0.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise UnsupportedModelError("model", "wanted one with ReLUs, got none")
    if levels < 1:
        raise ArgumentError("levels", f"wanted at least 1, got {levels}")
    classes, scores = classes_and_scores(model, images, targets, chunk)
    start = torch.zeros_like(images) if baselines is None else baselines
    faded = torch.zeros_like(scores)
    for level in range(levels):
        faded += target_scores(class_scores(model, start + level / levels * (images - start)), classes) / levels
    return ((images - start).abs().mean(1, keepdim=True)) * (scores - faded).abs().view(-1, 1, 1, 1)
