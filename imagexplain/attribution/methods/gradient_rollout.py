"""Rollout of attention times its gradient: relevance to one class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.registry import register
from imagexplain.attribution.rollout import AttentionPass, attention_gradients, relevance_row, rollout_maps
from imagexplain.attribution.targets import Targets


@register(family="attention", needs={"gradients", "module", "attention"}, coarse=True)
@isolated
def gradient_rollout(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    upsample: bool = True,
    chunk: int = 8,
) -> Tensor:
    """Relevance by attention and its gradient: R ← R + Ā R, with Ā the mean over heads of (∇A ⊙ A)⁺, from R = I.

    The map is R − I: what came through attention. For a class token that is the same, for its own part is not a
    patch's; with a mean over patches it is a constant less. Of learned queries, which pool by attention, it is Ā R.
    Unlike the "gradient rollout" of some code there is no mean with the identity and no scaling of rows.

    Args:
        model, images, upsample, chunk: Arguments as for
            :func:`~imagexplain.attribution.methods.attention_rollout.attention_rollout`.
        targets: Classes to explain, whose scores A is differentiated by: one for all images, one for each, or None for
            the predicted ones.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

    Raises:
        ValueError: as for :func:`~imagexplain.attribution.methods.attention_rollout.attention_rollout`.

    Source: Chefer, Gur, Wolf 2021, arXiv 2103.15679, equations 5 and 6.

    Example:
        >>> import timm
        >>> from torch import rand
        >>> from imagexplain import gradient_rollout
        >>> network = timm.create_model("test_vit", num_classes=5)
        >>> maps = gradient_rollout(network, rand(1, 3, 160, 160), targets=3)
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([1, 1, 160, 160]), True)
    """
    return rollout_maps(_gradient_rollout, model, images, targets, upsample, chunk)


def _gradient_rollout(seen: AttentionPass) -> Tensor:
    gradients = attention_gradients(seen.scores, F.one_hot(seen.classes, seen.scores.shape[1]), seen.attention)
    pairs = zip(gradients, seen.attention, strict=True)
    return relevance_row(seen, [gradient * layer.output.detach() for gradient, layer in pairs])
