from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.graph_tensors import GraphTensors, graph_tensors, lay_out
from imagexplain.vision import scene_graph
from imagexplain.vision.scene_graph import SceneGraph
from tests.models.captioning import EGA, arrays, regions

ORIGINAL = {
    "node_types": "node_types",
    "orders": "attr_order_idxs",
    "mask": "attn_masks",
    "edges": "rel_edges",
    "flow": "flow_edges",
}
"""The original's names of the tensors."""


def same(one: GraphTensors, other: GraphTensors) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


@pytest.mark.upstream
@pytest.mark.parametrize("limit", [6, 10, 16])
def test_tensors_equal_upstream(limit: int) -> None:
    layouts = [lay_out(graph, limit) for graph in regions()]
    tensors, wanted = graph_tensors(layouts, limit), arrays(f"reader_limit{limit}.npz")
    for name, original in ORIGINAL.items():
        assert torch.equal(getattr(tensors, name), wanted[original].to(getattr(tensors, name))), name
    names = json.loads((EGA / f"reader_limit{limit}_nodes.json").read_text())
    assert [[node.name for node in layout.nodes] for layout in layouts] == list(names.values())


def test_a_golden_graph_by_hand() -> None:
    """A small boy on some grass and a frisbee: boy, small, grass, frisbee, on, on."""
    tensors = graph_tensors([lay_out(regions()[0])])
    assert tensors.node_types.tolist() == [[0, 1, 0, 0, 2, 2]] and tensors.orders.tolist() == [[0, 1, 0, 0, 0, 0]]
    edges = {tuple(place): tensors.edges[0][tuple(place)].item() for place in tensors.edges[0].nonzero().tolist()}
    assert edges == {
        (0, 1, 0): 1,
        (1, 0, 1): 1,
        (2, 4, 0): 1,
        (2, 5, 0): 1,
        (3, 0, 4): 0.5,
        (3, 0, 5): 0.5,
        (4, 2, 4): 1,
        (4, 3, 5): 1,
        (5, 4, 2): 1,
        (5, 5, 3): 1,
    }
    flow = {
        tuple(place): round(tensors.flow[0][tuple(place)].item(), 3) for place in tensors.flow[0].nonzero().tolist()
    }
    third = {(1, 0): 0.333, (4, 0): 0.333, (5, 0): 0.333}
    assert flow == third | {(0, 1): 1, (2, 4): 1, (3, 5): 1, (2, 2): 1, (3, 3): 1}


def test_what_a_limit_drops_is_told() -> None:
    dropped = [[node.name for node in lay_out(graph, 10).dropped] for graph in regions()]
    assert dropped[:5] == [[]] * 5
    assert dropped[5] == ["holds", "chases"]  # objects and attributes fill the ten nodes
    assert [len(names) for names in dropped] == [0, 0, 0, 0, 0, 2, 2, 5, 3, 0]
    for graph in regions():
        whole, cut = lay_out(graph), lay_out(graph, 3)
        assert whole.nodes == graph.nodes and not whole.dropped
        assert cut.nodes + cut.dropped == graph.nodes
    node = lay_out(regions()[5], 10).dropped[0]
    assert (node.role, node.objects) == ("relationship", (2, 1))


def test_names_do_not_reach_the_tensors() -> None:
    def unnamed(graph: SceneGraph) -> SceneGraph:
        objects = tuple(replace(one, name="", attributes=("x",) * len(one.attributes)) for one in graph.objects)
        return SceneGraph(objects, tuple(replace(each, name="y", id=None) for each in graph.relationships))

    assert same(
        *(graph_tensors([lay_out(graph) for graph in all_of]) for all_of in (regions(), map(unnamed, regions())))
    )


@pytest.mark.parametrize(
    "pairs",
    [
        [[0, 1], [1, 2], [2, 0]],
        [[0, 0]],
        [[0, 0], [0, 0]],
        [[0, 1], [0, 1], [1, 0]],
        [],
    ],
    ids=["cycle", "self", "self twice", "one pair thrice", "none"],
)
def test_shares_sum_to_one(pairs: list[list[int]]) -> None:
    objects = [{"box": [0, 0, 9, 9], "attributes": 2}, {"box": [0, 0, 9, 9]}, {"box": [3, 3, 9, 9]}]
    graph = scene_graph.read({"objects": objects, "relationships": pairs})
    tensors = graph_tensors([lay_out(graph)], 12)
    assert torch.equal(tensors.flow.sum(1)[tensors.mask], torch.ones(len(graph.nodes)))
    assert not tensors.flow.sum(1)[~tensors.mask].any()
    per_target = tensors.edges.sum(3)
    assert ((per_target - 1).abs() < 1e-6).logical_or(per_target == 0).all()
    present = (tensors.edges > 0).sum((0, 2, 3)).tolist()
    assert present == [2, 2, *[len(pairs)] * 4]


def test_padding_and_batches() -> None:
    layouts = [lay_out(graph) for graph in regions()]
    together = graph_tensors(layouts, 16)
    for place, layout in enumerate(layouts):
        alone = graph_tensors([layout], 16)
        assert all(
            torch.equal(getattr(together, f.name)[place : place + 1], getattr(alone, f.name)) for f in fields(alone)
        )
        tight, count = graph_tensors([layout]), len(layout.nodes)
        assert torch.equal(tight.edges, alone.edges[..., :count, :count])
        assert torch.equal(tight.flow, alone.flow[:, :count, :count])


def test_arguments() -> None:
    layout = lay_out(regions()[0])
    with pytest.raises(ArgumentError, match="limit: wanted at least 1, got 0"):
        lay_out(regions()[0], 0)
    with pytest.raises(ArgumentError, match="width: wanted at least the 6 nodes of the largest graph, got 5"):
        graph_tensors([layout], 5)
    with pytest.raises(ArgumentError, match="layouts: wanted at least one, got none"):
        graph_tensors([])
