"""Rollout: how much of each patch reached the tokens that the scores are read from, by the attention of all layers.

A relation of the tokens after a layer to those before it is a matrix for each layer, and rollout is their product. Only
the rows of the tokens that are read are wanted, so that one row is carried back through the layers, and no product of
matrices is needed; attention within windows stays so. Which tokens are read, the class token or patches, is seen from
the gradient of the scores with respect to the last layer's attention: the map is the mean of their rows, without
prefix tokens. Swin merges 2 × 2 tokens between stages: a merged token is the mean of those that it is made of.

Own, for Captum has neither method.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.methods.cam import shown
from imagexplain.attribution.network.attention_capture import AttentionLayer, attention_layers
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.targets import Targets, check, classes_of, classes_to_explain

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda attention: attention.mean(2),
    "max": lambda attention: attention.amax(2),
    "min": lambda attention: attention.amin(2),
}
"""How (B, windows, heads, T, T) become one matrix a window; the paper's is the mean."""

Rule = Callable[[Tensor, list[AttentionLayer], Tensor, Tensor], Tensor]
"""Scores (B, classes), layers, classes (B,) and the first row (B, tokens) to the last row."""


@isolated
def attention_rollout(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    head_fusion: str = "mean",
    discard: float = 0.0,
    upsample: bool = True,
    chunk: int = 8,
) -> Tensor:
    """Attention rollout: the product of all layers' (A + I) / 2, with rows that sum to 1, the same for every class.

    Args:
        model: a transformer in ``eval()``, (B, C, H, W) to scores (B, classes): one that attends to all its tokens in
            every layer (ViT, DeiT, BEiT, torchvision's), or timm's Swin, first or second version.
        images: (B, C, H, W) in model-input space.
        targets: only checked.
        head_fusion: a key of :data:`FUSIONS`.
        discard: share in [0, 1) of each row's smallest attention that counts as 0. Other code does so for each matrix
            as a whole; the paper not at all.
        upsample: resize the map to the images' (bilinear, ``align_corners=False``) or leave it at the patches' grid.
        chunk: images evaluated at once, at most.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0; sums to 1 with the prefix tokens, at the grid.

    Raises:
        ValueError: a model without attention or with one that is not such a chain (see
            :func:`imagexplain.attribution.network.attention_capture.attention_layers`), or what does not fit the model.

    Source: Abnar, Zuidema 2020, arXiv 2005.00928, equation 1 and section 3.
    """
    if head_fusion not in FUSIONS:
        raise ValueError(f"head_fusion: wanted one of {', '.join(FUSIONS)}, got {head_fusion!r}")
    if not 0 <= discard < 1:
        raise ValueError(f"discard: wanted a share in [0, 1), got {discard}")
    return _maps(partial(_rollout, fuse=FUSIONS[head_fusion], discard=discard), model, images, targets, upsample, chunk)


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

    Given is R − I: what came through attention. For a class token that is the same, for its own part is not a patch's;
    with pooling a constant less. Other than in the "gradient rollout" of some code there is no mean with the identity
    and no scaling of rows.

    Args:
        model, images, upsample, chunk: as for :func:`attention_rollout`.
        targets: see :data:`~imagexplain.attribution.targets.Targets`; their score is what A is differentiated by.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

    Raises:
        ValueError: as for :func:`attention_rollout`.

    Source: Chefer, Gur, Wolf 2021, arXiv 2103.15679, equations 5 and 6.
    """
    return _maps(_gradient_rollout, model, images, targets, upsample, chunk)


def _maps(rule: Rule, model: nn.Module, images: Tensor, targets: Targets, upsample: bool, chunk: int) -> Tensor:
    check(images, chunk)
    given = None if targets is None else classes_to_explain(model, images, targets, chunk)
    maps = []
    for rows in torch.arange(len(images), device=images.device).split(chunk):
        scores, layers = attention_layers(model, images[rows])
        classes = classes_of(scores, None if given is None else given[rows])
        row = rule(scores, layers, classes, _read(scores, layers[-1]))
        maps.append(row[:, layers[0].prefix :].unflatten(1, (1, *layers[0].grid)))
    return shown(torch.cat(maps), images, upsample)


def _rollout(
    _: Tensor,
    layers: list[AttentionLayer],
    __: Tensor,
    row: Tensor,
    fuse: Callable[[Tensor], Tensor],
    discard: float,
) -> Tensor:
    for index in reversed(range(len(layers))):
        layer = layers[index]
        attention = _stronger(_known(fuse(_split(layer, layer.output.detach())), layer), layer, discard)
        here = _to_windows(row, layer) / (1 + attention.sum(-1))
        row = _to_row(_times(here, attention) + here, layer)
        row = _unmerged(row, layers, index)
    return row


def _gradient_rollout(scores: Tensor, layers: list[AttentionLayer], classes: Tensor, row: Tensor) -> Tensor:
    gradients = _gradients(scores, F.one_hot(classes, scores.shape[1]), layers)
    attended = torch.zeros_like(row)  # row · (R − I); the row itself is only merged
    for index in reversed(range(len(layers))):
        layer = layers[index]
        relevance = _split(layer, gradients[index] * layer.output.detach()).relu().mean(2)
        here = _to_windows(row + attended, layer)
        attended = attended + _to_row(_times(here, _known(relevance, layer)), layer)
        row, attended = (_unmerged(part, layers, index) for part in (row, attended))
    return attended


def _read(scores: Tensor, last: AttentionLayer) -> Tensor:
    """(B, tokens) which tokens after the last attention the scores are a function of, each image's sum 1."""
    # Weights that differ, for the sum of the scores itself is constant in some models.
    weights = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(scores)
    (gradient,) = _gradients(scores, weights, [last])
    read = _to_row(_split(last, gradient).ne(0).any(-1).any(2).to(scores), last)
    if not read.any(1).all():
        raise ValueError("model: wanted scores that depend on the last layer's attention, got ones that do not")
    return read / read.sum(1, keepdim=True)


def _gradients(scores: Tensor, weights: Tensor, layers: list[AttentionLayer]) -> tuple[Tensor, ...]:
    """Those of each image's weighted scores by each layer's attention; images do not interact."""
    outputs = [layer.output for layer in layers]
    return torch.autograd.grad(scores, outputs, weights.to(scores), retain_graph=True, materialize_grads=True)


def _split(layer: AttentionLayer, values: Tensor) -> Tensor:
    """(B, windows, heads, T, T) of the values of a layer's attention."""
    return values.reshape(layer.shape)


def _known(relation: Tensor, layer: AttentionLayer) -> Tensor:
    """(B, windows, T, T) without what tokens take from padding."""
    return relation * (layer.places < layer.tokens).unsqueeze(1)


def _stronger(attention: Tensor, layer: AttentionLayer, discard: float) -> Tensor:
    """(B, windows, T, T) with the smallest share of each row, padding not counted, set to 0."""
    if discard == 0:
        return attention
    padding = layer.places == layer.tokens
    order = attention.masked_fill(padding.unsqueeze(1), float("inf")).argsort(stable=True, dim=-1).argsort(-1)
    dropped = ((~padding).sum(1) * discard).floor()
    return attention * (order >= dropped.view(-1, 1, 1))


def _to_windows(row: Tensor, layer: AttentionLayer) -> Tensor:
    """(B, tokens) to (B, windows, T), 0 at padding."""
    return torch.cat([row, row.new_zeros(len(row), 1)], 1)[:, layer.places]


def _to_row(windows: Tensor, layer: AttentionLayer) -> Tensor:
    """(B, windows, T) to (B, tokens), without padding."""
    row = windows.new_zeros(len(windows), layer.tokens + 1)
    return row.scatter(1, layer.places.flatten().expand(len(row), -1), windows.flatten(1))[:, :-1]


def _times(windows: Tensor, relation: Tensor) -> Tensor:
    """(B, windows, T) rows times (B, windows, T, T)."""
    return torch.einsum("bws,bwst->bwt", windows, relation)


def _unmerged(row: Tensor, layers: list[AttentionLayer], index: int) -> Tensor:
    """(B, tokens) before a layer to those after the layer before it, which a merging may lie between.

    Merging pads a side that is odd; the mean is that of the tokens that there are.
    """
    grid = layers[index].grid
    if index == 0 or grid == layers[index - 1].grid:
        return row
    down, right = (torch.arange(side, device=row.device) // 2 for side in layers[index - 1].grid)
    parents = (down.unsqueeze(1) * grid[1] + right).flatten()
    return row[:, parents] / parents.bincount()[parents]
