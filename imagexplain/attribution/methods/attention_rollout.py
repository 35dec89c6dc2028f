"""Attention rollout: the attention of all layers multiplied, the same for every class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from imagexplain.attribution.network.attention_capture import AttentionLayer
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.registry import register
from imagexplain.attribution.rollout import (
    AttentionPass,
    pooled,
    rollout_maps,
    split_heads,
    times,
    to_row,
    to_windows,
    unmerged,
    without_padding,
)
from imagexplain.attribution.targets import Targets
from imagexplain.errors import ArgumentError

HeadFusion = Literal["mean", "max", "min"]

FUSIONS: dict[HeadFusion, Callable[[Tensor], Tensor]] = {
    "mean": lambda attention: attention.mean(2),
    "max": lambda attention: attention.amax(2),
    "min": lambda attention: attention.amin(2),
}
"""Reductions of (B, windows, heads, T, T) to one matrix a window; the paper's is the mean."""


@register(family="attention", needs={"gradients", "module", "attention"}, coarse=True)
@isolated
def attention_rollout(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    head_fusion: HeadFusion = "mean",
    discard: float = 0.0,
    upsample: bool = True,
    chunk: int = 8,
) -> Tensor:
    """Attention rollout: the product of all layers' (A + I) / 2, with rows that sum to 1, the same for every class.

    Args:
        model: Transformer in ``eval()`` that turns (B, C, H, W) into scores (B, classes): one that attends to all its
            tokens in every layer (ViT, DeiT, BEiT, torchvision's) and may pool them by attention (SigLIP), or a Swin
            of timm or transformers, first or second version.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes, which are only checked.
        head_fusion: Reduction of a layer's heads to one matrix, a key of :data:`FUSIONS`.
        discard: Share in [0, 1) of each row's smallest attention that counts as 0. Other code does so for each matrix
            as a whole; the paper not at all.
        upsample: Size of the map: the images' (bilinear, ``align_corners=False``) if True, else the patches' grid.
        chunk: Largest number of images evaluated at once.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0; sums to 1 with the prefix tokens, at the grid.

    Raises:
        ValueError: a model without attention or with one that is not such a chain (see
            :func:`imagexplain.attribution.network.attention_capture.attention_layers`), or what does not fit the model.

    Source: Abnar, Zuidema 2020, arXiv 2005.00928, equation 1 and section 3.

    Example:
        >>> import timm
        >>> from torch import rand
        >>> from imagexplain import attention_rollout
        >>> network = timm.create_model("test_vit", num_classes=5)
        >>> maps = attention_rollout(network, rand(1, 3, 160, 160), upsample=False)
        >>> maps.shape, 0 < maps.sum().item() < 1  # the class token has the rest
        (torch.Size([1, 1, 10, 10]), True)
    """
    if head_fusion not in FUSIONS:
        raise ArgumentError("head_fusion", f"wanted one of {', '.join(FUSIONS)}, got {head_fusion!r}")
    if not 0 <= discard < 1:
        raise ArgumentError("discard", f"wanted a share in [0, 1), got {discard}")
    return rollout_maps(
        partial(_rollout, fuse=FUSIONS[head_fusion], discard=discard), model, images, targets, upsample, chunk
    )


def _rollout(seen: AttentionPass, fuse: Callable[[Tensor], Tensor], discard: float) -> Tensor:
    row = seen.row
    if seen.pooling is not None:
        attention = _stronger(fuse(split_heads(seen.pooling, seen.pooling.output.detach())), seen.pooling, discard)
        row = pooled(row, attention / attention.sum(-1, keepdim=True), seen.pooling)
    for index in reversed(range(len(seen.layers))):
        layer = seen.layers[index]
        attention = _stronger(without_padding(fuse(split_heads(layer, layer.output.detach())), layer), layer, discard)
        here = to_windows(row, layer) / (1 + attention.sum(-1))
        row = to_row(times(here, attention) + here, layer)
        row = unmerged(row, seen.layers, index)
    return row


def _stronger(attention: Tensor, layer: AttentionLayer, discard: float) -> Tensor:
    """Attention (B, windows, T, T) with the smallest share of each row, padding not counted, set to 0."""
    if discard == 0:
        return attention
    padding = layer.places == layer.tokens
    order = attention.masked_fill(padding.unsqueeze(1), float("inf")).argsort(stable=True, dim=-1).argsort(-1)
    dropped = ((~padding).sum(1) * discard).floor()
    return attention * (order >= dropped.view(-1, 1, 1))
