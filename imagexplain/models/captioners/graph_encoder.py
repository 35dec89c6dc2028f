"""Encoders of a scene graph: role-aware features of nodes, relational graph convolutions, and the whole in a vector.

Source: Chen et al., "Say As You Wish: Fine-grained Control of Image Caption Generation with Abstract Scene Graphs",
CVPR 2020 (arXiv 2003.00387); Schlichtkrull et al., "Modeling Relational Data with Graph Convolutional
Networks", ESWC 2018 (arXiv 1703.06103). The names of submodules are asg2cap's, https://github.com/cshizhe/asg2cap, MIT.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.models.captioners.graph_tensors import EDGE_TYPES, NODE_TYPES, GraphTensors
from imagexplain.vision.scene_graph import MAX_ATTRIBUTES

PERIOD = 10_000.0
"""Base of the wavelengths in the table of orders."""


class RelationalLayer(nn.Module):
    """Relational graph convolution: ReLU(h W₀ + Σ_r A_r h W_r), with a weight for each kind r of edges and no bias."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.loop_weight = nn.Parameter(torch.empty(width_in, width))
        self.weight = nn.Parameter(torch.empty(len(EDGE_TYPES), width_in, width))
        for weight in (self.loop_weight, self.weight):
            # As upstream, the kinds' weights start small: torch takes the last of three dimensions for a filter's size.
            nn.init.xavier_uniform_(weight, nn.init.calculate_gain("relu"))

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Pass messages along the edges: nodes (B, N, I) and edges (B, 6, N, N) to nodes (B, N, O)."""
        messages = (edges.to(nodes) @ nodes.unsqueeze(1)).transpose(1, 2).flatten(2)  # (B, N, 6·I)
        return F.relu(nodes @ self.loop_weight + messages @ self.weight.flatten(0, 1))


class GraphEncoder(nn.Module):
    """Encoder of a graph's nodes: image features (B, N, features) to embeddings (B, N, width).

    A feature is multiplied, dimension by dimension, with the sum of a learnt vector of its role and a fixed one of its
    order among an object's attributes.
    """

    attr_order_embeds: Tensor

    def __init__(self, features: int, width: int, layers: int = 2) -> None:
        super().__init__()
        self.node_embedding = nn.Embedding(len(NODE_TYPES), features)
        self.register_buffer("attr_order_embeds", order_table(MAX_ATTRIBUTES + 1, features))
        self.first_embedding = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.layers = nn.ModuleList(RelationalLayer(width, width) for _ in range(layers))

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        roles = self.node_embedding(graph.node_types) + self.attr_order_embeds[graph.orders]
        nodes: Tensor = self.first_embedding(features * roles)
        for layer in self.layers:
            nodes = layer(nodes, graph.edges)
        return nodes


class GlobalEncoder(nn.Module):
    """Encoder of image and graph: global feature (B, features) and nodes (B, N, width) to a vector (B, width)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.ft_embed = nn.Linear(features + width, width)

    def forward(self, feature: Tensor, nodes: Tensor, mask: Tensor) -> Tensor:
        mean = nodes.masked_fill(~mask.unsqueeze(2), 0).sum(1) / mask.sum(1, keepdim=True)
        embedded: Tensor = self.ft_embed(torch.cat([feature, mean], 1))
        return embedded


def order_table(rows: int, width: int) -> Tensor:
    """Table (rows, width) of orders: zeros for none, then sinusoids of the positions 0, 1, …

    Source: Vaswani et al., "Attention Is All You Need", section 3.5 (arXiv 1706.03762), sines and cosines in turns.

    Example:
        >>> from imagexplain.models.captioners.graph_encoder import order_table
        >>> order_table(20, 2048).shape, order_table(3, 2)[:2].tolist()
        (torch.Size([20, 2048]), [[0.0, 0.0], [0.0, 1.0]])
    """
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(PERIOD) / width))
    angles = torch.arange(rows - 1, dtype=torch.float64).unsqueeze(1) * rates
    table = torch.zeros(rows, width, dtype=torch.float64)
    table[1:, 0::2] = angles.sin()
    table[1:, 1::2] = angles[:, : width // 2].cos()
    return table.float()
