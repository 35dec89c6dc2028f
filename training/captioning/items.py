"""Items of a captioner's data: a graph with its features and captions; and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imagexplain.models.captioners.graph_tensors import GraphTensors, Layout, graph_tensors
from imagexplain.vision.scene_graph import SceneGraph
from training.captioning.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class CaptionItem:
    """A graph over an image, as a captioner takes it.

    Attributes:
        image_name: Name of the image.
        region: Name of the region: the graph's.
        graph: Graph.
        layout: Nodes that are taken, and those that a limit dropped.
        nodes: Features (N, D) of the nodes that are taken.
        image: Feature (G,) of the whole image.
        caption: Caption to learn.
        references: Captions to compare with, at least one.
    """

    image_name: str
    region: str
    graph: SceneGraph
    layout: Layout
    nodes: Tensor
    image: Tensor
    caption: str
    references: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name in files of captions, ``<image>_<region>``."""
        return f"{self.image_name}_{self.region}"


@dataclass(frozen=True)
class Batch:
    """Items in a batch of B.

    Attributes:
        nodes: Features (B, N, D), zero for padding.
        image: Features (B, G).
        graph: Graphs.
        words: Ids (B, T) of the captions, int64, from the sign of begin to that of end.
        mask: Mask (B, T), bool, of the ids that count.
    """

    nodes: Tensor
    image: Tensor
    graph: GraphTensors
    words: Tensor
    mask: Tensor


def batch_of(items: Sequence[CaptionItem], vocabulary: Vocabulary, width: int | None = None) -> Batch:
    """Bring items into a batch.

    Args:
        items: B items, at least one.
        vocabulary: Words of their captions.
        width: Number N of nodes to pad to; None for the largest graph's.
    """
    graph = graph_tensors([item.layout for item in items], width)
    nodes = torch.zeros(*graph.mask.shape, items[0].nodes.shape[1])
    nodes[graph.mask] = torch.cat([item.nodes for item in items])
    words, mask = vocabulary.encode([item.caption for item in items])
    return Batch(nodes, torch.stack([item.image for item in items]), graph, words, mask)
