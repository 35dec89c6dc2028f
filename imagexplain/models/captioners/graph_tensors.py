"""Scene graphs as batched tensors: the nodes' types and orders, their edges by type, and the flow of attention.

Source: asg2cap's reader (https://github.com/cshizhe/asg2cap, ``controlimcap/readers/imgsgreader.py``, MIT), which cuts
a graph off after ten nodes without a word; here the whole graph is taken unless a limit is asked for, and what a limit
drops is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Id, Node, SceneGraph

NODE_TYPES = ("object", "attribute", "relationship")
"""Roles of nodes in the order of their type numbers."""

EDGE_TYPES = (
    "object to attribute",
    "attribute to object",
    "subject to relationship",
    "relationship to subject",
    "relationship to object",
    "object to relationship",
)
"""Kinds of edges in the order of their numbers."""

_FLOWING = [0, 1, 2, 4]
"""Kinds of edges along which attention flows: both ways to an attribute, from subject to relationship to object."""


@dataclass(frozen=True)
class Layout:
    """Nodes of a graph that a captioner sees, and those that a limit keeps from it.

    Attributes:
        nodes: Nodes that are kept, in the captioner's order.
        dropped: Nodes beyond the limit, in order: empty without one.
    """

    nodes: tuple[Node, ...]
    dropped: tuple[Node, ...] = ()


@dataclass(frozen=True)
class GraphTensors:
    """Graphs of a batch, each padded to N nodes.

    Attributes:
        node_types: Types (B, N), int64, places in :data:`NODE_TYPES`; 0 for padding.
        orders: Orders (B, N), int64, of attributes from 1; 0 for other nodes and padding.
        mask: Mask (B, N), bool, true for nodes, false for padding.
        edges: Edges (B, 6, N, N), float32, [kind, target, source]: each an equal share of its target's edges of the
            kind.
        flow: Flow (B, N, N), float32, [target, source]: each edge an equal share of those out of its source. The column
            of a node sums to 1, for one without a way out leads to itself.
    """

    node_types: Tensor
    orders: Tensor
    mask: Tensor
    edges: Tensor
    flow: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def to(self, device: torch.device | str) -> GraphTensors:
        """Move the tensors to a device."""
        return GraphTensors(*(tensor.to(device) for tensor in self._tensors))

    def expand(self, count: int) -> GraphTensors:
        """Repeat a batch of one graph, as views."""
        return GraphTensors(*(tensor.expand(count, *tensor.shape[1:]) for tensor in self._tensors))

    @property
    def _tensors(self) -> Iterator[Tensor]:
        return (getattr(self, field.name) for field in fields(self))


def lay_out(graph: SceneGraph, limit: int | None = None) -> Layout:
    """Lay out the nodes of a graph: objects, each before its attributes, then relationships, up to a limit.

    Args:
        graph: Graph of at least one object.
        limit: Largest number of nodes, at least 1; None for all of them. The original's is 10.

    Raises:
        ArgumentError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ArgumentError("limit", f"wanted at least 1, got {limit}")
    nodes = graph.nodes
    return Layout(nodes[:limit], () if limit is None else nodes[limit:])


def graph_tensors(layouts: Sequence[Layout], width: int | None = None) -> GraphTensors:
    """Bring the laid out nodes of some graphs into one batch.

    Args:
        layouts: Layouts of B graphs.
        width: Number N of nodes to pad to; None for the largest graph's.

    Raises:
        ArgumentError: no graph, or a width below a graph's number of nodes.

    Example:
        >>> from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
        >>> from imagexplain.vision import scene_graph
        >>> graph = scene_graph.read({"objects": [{"box": [0, 0, 9, 9], "attributes": 2}]})
        >>> tensors = graph_tensors([lay_out(graph), lay_out(graph, limit=2)])
        >>> tensors.mask.tolist(), tensors.edges[0, 1, 0].tolist()
        ([[True, True, True], [True, True, False]], [0.0, 0.5, 0.5])
    """
    counts = torch.tensor([len(layout.nodes) for layout in layouts], dtype=torch.int64)
    if not len(counts):
        raise ArgumentError("layouts", "wanted at least one, got none")
    largest = int(counts.max())
    width = largest if width is None else width
    if width < largest:
        raise ArgumentError("width", f"wanted at least the {largest} nodes of the largest graph, got {width}")
    mask = torch.arange(width) < counts.unsqueeze(1)  # (B, N)
    nodes = [node for layout in layouts for node in layout.nodes]
    node_types = torch.zeros(mask.shape, dtype=torch.int64)
    orders = torch.zeros(mask.shape, dtype=torch.int64)
    node_types[mask] = torch.tensor([NODE_TYPES.index(node.role) for node in nodes])
    orders[mask] = torch.tensor([node.order for node in nodes])

    found = [(graph, *edge) for graph, layout in enumerate(layouts) for edge in _edges(layout.nodes)]
    present = torch.zeros(len(counts), len(EDGE_TYPES), width, width)
    present[tuple(torch.tensor(found, dtype=torch.int64).view(-1, 4).T)] = 1
    edges = present / present.sum(3, keepdim=True).clamp_min(1)
    ways = present[:, _FLOWING].sum(1)  # (B, N, N)
    ways = ways + torch.diag_embed((mask & (ways.sum(1) == 0)).to(ways))
    return GraphTensors(node_types, orders, mask, edges, ways / ways.sum(1, keepdim=True).clamp_min(1))


def _edges(nodes: Sequence[Node]) -> Iterator[tuple[int, int, int]]:
    """Edges of a graph: (kind, target, source), none of them twice."""
    places: dict[Id, int] = {}
    for place, node in enumerate(nodes):
        first, last = node.objects[0], node.objects[-1]
        if node.role == "object":
            places[first] = place
        elif node.role == "attribute":
            yield 0, place, places[first]
            yield 1, places[first], place
        else:
            yield 2, place, places[first]
            yield 3, places[first], place
            yield 4, places[last], place
            yield 5, place, places[last]
