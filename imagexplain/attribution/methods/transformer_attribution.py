"""Transformer attribution: rollout of attention's relevance times its gradient, the relevance by LRP rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.network.attention_capture import Note, attention_layers
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.relevance_rules import RelevanceRules
from imagexplain.attribution.registry import register
from imagexplain.attribution.rollout import AttentionPass, attention_gradients, relevance_row, rollout_maps, split_heads
from imagexplain.attribution.targets import Targets


@register(family="attention", needs={"gradients", "module", "attention"}, gradient_passes=lambda work: 1, coarse=True)
@isolated
def transformer_attribution(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    upsample: bool = True,
    chunk: int = 8,
) -> Tensor:
    """Relevance by attention: R ← R + Ā R, with Ā the mean over heads of (∇A ⊙ r(A))⁺, from R = I.

    r(A) is the relevance of a layer's attention by layer-wise relevance propagation from the class's score, by the
    rules of :mod:`imagexplain.attribution.network.relevance_rules`, where
    :func:`~imagexplain.attribution.methods.gradient_rollout.gradient_rollout`, the same authors' later method, has A
    itself. The map is R − I, for the tokens that the scores are read from, or Ā R for learned queries that pool them.

    Args:
        model, images, upsample, chunk: Arguments as for
            :func:`~imagexplain.attribution.methods.attention_rollout.attention_rollout`.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

    Raises:
        ValueError: as for :func:`~imagexplain.attribution.methods.attention_rollout.attention_rollout`, or a model that
            calls functions for which there is no rule after its first attention.

    Source: Chefer, Gur, Wolf 2021, arXiv 2012.09838, equations 3 to 14, with the z⁺ rule as in the authors' code. Where
    the code shares the relevance of a sum out by the whole batch, this does for each image.

    Example:
        >>> import timm
        >>> from torch import rand
        >>> from imagexplain import transformer_attribution
        >>> network = timm.create_model("test_vit", num_classes=5)
        >>> maps = transformer_attribution(network, rand(1, 3, 160, 160), targets=3)
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([1, 1, 160, 160]), True)
    """
    return rollout_maps(partial(_relevance_rollout, model), model, images, targets, upsample, chunk)


def _relevance_rollout(model: nn.Module, seen: AttentionPass) -> Tensor:
    wanted = F.one_hot(seen.classes, seen.scores.shape[1])
    gradients = attention_gradients(seen.scores, wanted, seen.attention)
    if _images_first(seen):
        relevance = _relevance(model, seen.images, wanted, RelevanceRules)
    else:
        each = zip(seen.images.split(1), wanted.split(1), strict=True)
        rows = [_relevance(model, *one, partial(RelevanceRules, alone=True)) for one in each]
        relevance = [torch.cat(layer) for layer in zip(*rows, strict=True)]
    pairs = zip(seen.attention, gradients, relevance, strict=True)
    return relevance_row(seen, [split_heads(layer, by) * of for layer, by, of in pairs])


def _images_first(seen: AttentionPass) -> bool:
    """Tell if no module around attention is given (tokens, images, …), as PyTorch's layers are by default."""
    shapes = ((layer, shape) for layer in seen.layers for _, shape in layer.callers)
    return not any(shape[:2] == (layer.tokens, len(seen.images)) for layer, shape in shapes)


def _relevance(
    model: nn.Module, images: Tensor, wanted: Tensor, rules: Callable[[Note], RelevanceRules]
) -> list[Tensor]:
    """Relevance (B, windows, heads, T, T) of each layer's attention."""
    scores, layers = attention_layers(model, images, rules)
    found = attention_gradients(scores, wanted, layers)
    return [split_heads(layer, of) for layer, of in zip(layers, found, strict=True)]
