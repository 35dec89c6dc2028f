"""Rollout: the share of each patch in the tokens that the scores are read from, by the attention of all layers.

A relation of the tokens after a layer to those before it is a matrix for each layer, and rollout is their product. Only
the rows of the tokens that are read are wanted, so that one row is carried back through the layers, and no product of
matrices is needed; attention within windows stays so. Which tokens are read, the class token or patches, is seen from
the gradient of the scores with respect to the last layer's attention: the map is the mean of their rows, without
prefix tokens. Swin merges 2 × 2 tokens between stages: a merged token is the mean of those that it is made of. Where
attention with learned queries pools the tokens (SigLIP), the row is that of the queries, which are no tokens: they have
the relation to the tokens alone, without the identity.

Own, for Captum has neither method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import shown
from imagexplain.attribution.network.attention_capture import AttentionLayer, attention_layers
from imagexplain.attribution.targets import Targets, check, classes_of, classes_to_explain
from imagexplain.errors import UnsupportedModelError


@dataclass(frozen=True)
class AttentionPass:
    """One pass of some images through a model, as rollouts need it.

    Attributes:
        images: Images (B, C, H, W).
        scores: Scores (B, classes), which autograd knows as a function of the layers' outputs.
        attention: All layers of attention, in order.
        classes: Classes (B,) to explain.
        row: Weights (B, tokens) of the tokens that the scores are read from; with pooling (B, Q), of its queries.
    """

    images: Tensor
    scores: Tensor
    attention: list[AttentionLayer]
    classes: Tensor
    row: Tensor

    @property
    def layers(self) -> list[AttentionLayer]:
        """Layers among the tokens."""
        return self.attention if self.pooling is None else self.attention[:-1]

    @property
    def pooling(self) -> AttentionLayer | None:
        """Last layer if it pools the tokens."""
        return self.attention[-1] if self.attention[-1].pools else None


Rule = Callable[[AttentionPass], Tensor]
"""Function from a pass, whose row is the first, to the last row (B, tokens)."""


def rollout_maps(rule: Rule, model: nn.Module, images: Tensor, targets: Targets, upsample: bool, chunk: int) -> Tensor:
    """Compute the maps (B, 1, H, W) that a rule gives, a chunk of images at a time."""
    check(images, chunk)
    given = None if targets is None else classes_to_explain(model, images, targets, chunk)
    maps = []
    for rows in torch.arange(len(images), device=images.device).split(chunk):
        scores, layers = attention_layers(model, images[rows])
        classes = classes_of(scores, None if given is None else given[rows])
        row = rule(AttentionPass(images[rows], scores, layers, classes, _read(scores, layers[-1])))
        maps.append(row[:, layers[0].prefix :].unflatten(1, (1, *layers[0].grid)))
    return shown(torch.cat(maps), images, upsample)


def _read(scores: Tensor, last: AttentionLayer) -> Tensor:
    """Weights (B, tokens) of the tokens after the last attention that the scores are read from, each image's sum 1.

    Where it pools, they are the queries' (B, Q).
    """
    # Weights that differ, for the sum of the scores itself is constant in some models.
    weights = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(scores)
    (gradient,) = attention_gradients(scores, weights, [last])
    rows = split_heads(last, gradient).ne(0).any(-1).any(2).to(scores)  # (B, windows, Q)
    read = rows.squeeze(1) if last.pools else to_row(rows, last)
    if not read.any(1).all():
        raise UnsupportedModelError(
            "model", "wanted scores that depend on the last layer's attention, got ones that do not"
        )
    return read / read.sum(1, keepdim=True)


def attention_gradients(scores: Tensor, weights: Tensor, layers: list[AttentionLayer]) -> tuple[Tensor, ...]:
    """Gradients of each image's weighted scores with respect to each layer's attention; images do not interact."""
    outputs = [layer.output for layer in layers]
    return torch.autograd.grad(scores, outputs, weights.to(scores), retain_graph=True, materialize_grads=True)


def relevance_row(seen: AttentionPass, relevance: Sequence[Tensor]) -> Tensor:
    """Row of R − I by R ← R + Ā R from R = I, with Ā the mean over heads of each layer's positive relevance.

    Queries that pool have no part of their own: their row is that of Ā R.

    Args:
        seen: Pass whose row the first one is.
        relevance: Relevance of each layer's attention, of its output's shape.
    """
    row = seen.row
    if seen.pooling is not None:
        row = pooled(row, split_heads(seen.pooling, relevance[-1]).relu().mean(2), seen.pooling)
    attended = torch.zeros_like(row)  # row · (R − I); the row itself is only merged
    for index in reversed(range(len(seen.layers))):
        layer = seen.layers[index]
        relation = split_heads(layer, relevance[index]).relu().mean(2)
        here = to_windows(row + attended, layer)
        attended = attended + to_row(times(here, without_padding(relation, layer)), layer)
        row, attended = (unmerged(part, seen.layers, index) for part in (row, attended))
    return attended if seen.pooling is None else row + attended


def pooled(row: Tensor, relation: Tensor, layer: AttentionLayer) -> Tensor:
    """Carry a row (B, Q) of the queries of a layer that pools to the tokens, by their relation (B, 1, Q, T)."""
    return to_row(times(row.unsqueeze(1), relation), layer)


def split_heads(layer: AttentionLayer, values: Tensor) -> Tensor:
    """Attention (B, windows, heads, Q, T) from the values of a layer's attention."""
    return values.reshape(layer.shape)


def without_padding(relation: Tensor, layer: AttentionLayer) -> Tensor:
    """Relation (B, windows, T, T) without what tokens take from padding."""
    return relation * (layer.places < layer.tokens).unsqueeze(1)


def to_windows(row: Tensor, layer: AttentionLayer) -> Tensor:
    """Cut a row (B, tokens) into windows (B, windows, T), 0 at padding."""
    return torch.cat([row, row.new_zeros(len(row), 1)], 1)[:, layer.places]


def to_row(windows: Tensor, layer: AttentionLayer) -> Tensor:
    """Join windows (B, windows, T) to a row (B, tokens), without padding."""
    row = windows.new_zeros(len(windows), layer.tokens + 1)
    return row.scatter(1, layer.places.flatten().expand(len(row), -1), windows.flatten(1))[:, :-1]


def times(windows: Tensor, relation: Tensor) -> Tensor:
    """Multiply rows (B, windows, T) by relations (B, windows, T, T), of whatever precision a model's softmax has."""
    return torch.einsum("bws,bwst->bwt", windows, relation.to(windows.dtype))


def unmerged(row: Tensor, layers: list[AttentionLayer], index: int) -> Tensor:
    """Carry a row (B, tokens) from before a layer to after the layer before it, which a merging may lie between.

    Merging pads a side that is odd; the mean is that of the tokens that there are.
    """
    grid = layers[index].grid
    if index == 0 or grid == layers[index - 1].grid:
        return row
    down, right = (torch.arange(side, device=row.device) // 2 for side in layers[index - 1].grid)
    parents = (down.unsqueeze(1) * grid[1] + right).flatten()
    return row[:, parents] / parents.bincount()[parents]
