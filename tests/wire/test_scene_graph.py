from __future__ import annotations

import json
from typing import Any

import pytest

from imagexplain.errors import ArgumentError
from imagexplain.vision import scene_graph
from imagexplain.vision.scene_graph import MAX_ATTRIBUTES, Box, Node, Relationship, SceneGraph, SceneObject

BOY: dict[str, Any] = {"object_id": 11, "name": "boy", "attributes": ["small"], "x": 245, "y": 182, "w": 115, "h": 173}
GRASS: dict[str, Any] = {"object_id": 10, "name": "grass", "attributes": [], "x": 91, "y": 158, "w": 545, "h": 242}
ON: dict[str, Any] = {"relationship_id": 1, "name": "on", "subject_id": 11, "object_id": 10}
REGION: dict[str, Any] = {"objects": [BOY, GRASS], "relationships": [ON], "phrase": "a small boy on some grass"}


def region(boy: dict[str, Any] | None = None, on: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    """The region file's entry, with other values under some keys; those that are ... are left out."""

    def changed(entry: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (entry | changes).items() if value is not ...}

    objects, relationships = [changed(BOY, boy or {}), GRASS], [changed(ON, on or {})]
    return changed({"objects": objects, "relationships": relationships, "phrase": "a boy"}, other)


def test_a_region_and_its_nodes() -> None:
    graph = scene_graph.read(REGION)
    assert graph.phrase == "a small boy on some grass"
    assert graph.objects[0] == SceneObject(11, Box(245, 182, 115, 173), ("small",), "boy")
    assert graph.relationships == (Relationship(11, 10, "on", 1),)
    boy, grass = graph.objects[0].box, graph.objects[1].box
    assert graph.nodes == (
        Node("object", (11,), 0, "boy", boy),
        Node("attribute", (11,), 1, "small", boy),
        Node("object", (10,), 0, "grass", grass),
        Node("relationship", (11, 10), 0, "on", grass),
    )
    assert list(boy.inclusive_corners) == [245, 182, 359, 354]
    assert Box(0, 0, 2, 2).union(Box(5, 1, 1, 7)) == Box(0, 0, 6, 8)


def test_a_region_comes_back_as_it_was() -> None:
    written = scene_graph.write_region(scene_graph.read(REGION))
    assert json.loads(json.dumps(written)) == REGION
    without = region(phrase=..., on={"relationship_id": ...})
    assert scene_graph.write_region(scene_graph.read(without)) == without | {"relationships": [ON]}


def test_the_minimal_form_is_the_same_graph_without_names() -> None:
    minimal = {
        "objects": [{"box": [245, 182, 115, 173], "attributes": 1}, {"box": [91, 158, 545, 242]}],
        "relationships": [[0, 1]],
    }
    nodes, whole = scene_graph.read(minimal).nodes, scene_graph.read(REGION).nodes
    assert [(node.role, node.order, node.box) for node in nodes] == [
        (node.role, node.order, node.box) for node in whole
    ]
    assert {node.name for node in nodes} == {""} and nodes[-1].objects == (0, 1)


def test_the_minimal_form_with_names() -> None:
    objects = [{"id": "a", "name": "boy", "box": [1, 2, 3.5, 4], "attributes": ["small", ""]}, {"box": [0, 0, 1, 1]}]
    graph = scene_graph.read({"objects": objects, "relationships": [["a", 1, "on"], ["a", "a"]]})
    assert graph.objects[0].attributes == ("small", "") and graph.objects[1].id == 1
    assert [(each.subject, each.object, each.name) for each in graph.relationships] == [("a", 1, "on"), ("a", "a", "")]
    again = scene_graph.read(scene_graph.write_region(graph))
    assert again.objects == graph.objects and again.nodes == graph.nodes


def test_what_is_fine() -> None:
    """Cycles, an object related to itself, several relationships of one pair, several objects in one box."""
    objects = [{"box": [0, 0, 9, 9]}, {"box": [0, 0, 9, 9]}, {"box": [5, 5, 9, 9], "attributes": MAX_ATTRIBUTES}]
    pairs = [[0, 1], [1, 2], [2, 0], [0, 0], [0, 1], [1, 0]]
    graph = scene_graph.read({"objects": objects, "relationships": pairs})
    assert len(graph.nodes) == 3 + MAX_ATTRIBUTES + 6
    assert graph.nodes[-3].box == graph.objects[0].box  # of an object with itself


def test_other_keys_of_a_region_are_left_alone() -> None:
    assert scene_graph.read(region(boy={"synsets": ["male_child.n.01"]}, region_id=5)).objects[0].name == "boy"


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        ([], "graph", "wanted an object with keys, got []"),
        ({}, "objects", "is missing"),
        (region(objects=[]), "objects", "wanted at least one, got none"),
        (region(objects="boy"), "objects", "wanted a list, got 'boy'"),
        (region(objects=[BOY, 3]), "objects[1]", "wanted an object with keys, got 3"),
        (region(relationships=...), "relationships", "is missing"),
        (region(boy={"w": ...}), "objects[0].w", "is missing"),
        (region(boy={"name": ...}), "objects[0].name", "is missing"),
        (region(boy={"attributes": ...}), "objects[0].attributes", "is missing"),
        (region(boy={"attributes": "small"}), "objects[0].attributes", "wanted a list, got 'small'"),
        (region(boy={"attributes": ["a", 5]}), "objects[0].attributes[1]", "wanted a string, got 5"),
        (region(boy={"attributes": ["a"] * 20}), "objects[0].attributes", "wanted at most 19 of an object, got 20"),
        (region(boy={"w": 0}), "objects[0].w", "wanted a box with an area, got 0"),
        (region(boy={"h": -1.5}), "objects[0].h", "wanted a box with an area, got -1.5"),
        (region(boy={"x": float("nan")}), "objects[0].x", "wanted a finite number of pixels, got nan"),
        (region(boy={"w": float("inf")}), "objects[0].w", "wanted a finite number of pixels, got inf"),
        (region(boy={"y": 10**400}), "objects[0].y", "wanted a finite number of pixels"),
        (region(boy={"x": "5"}), "objects[0].x", "wanted a number, got '5'"),
        (region(boy={"x": True}), "objects[0].x", "wanted a number, got True"),
        (region(boy={"object_id": 10}), "objects[1]", "wanted an id of its own, got 10 again"),
        (region(boy={"object_id": 1.0}), "objects[0].object_id", "wanted a whole number or a string, got 1.0"),
        (region(on={"subject_id": 12}), "relationships[0].subject", "unknown object id 12; known: 11, 10"),
        (region(on={"object_id": "10"}), "relationships[0].object", "unknown object id '10'"),
        (region(on={"object_id": ...}), "relationships[0].object_id", "is missing"),
        (region(on={"object_id": []}), "relationships[0].object_id", "wanted a whole number or a string, got []"),
        (region(phrase=3), "phrase", "wanted a string, got 3"),
        ({"objects": [{"box": [0, 0, 1]}]}, "objects[0].box", "wanted [x, y, width, height], got [0, 0, 1]"),
        ({"objects": [{"box": [0, 0, 1, 0]}]}, "objects[0].h", "wanted a box with an area, got 0"),
        ({"objects": [{}]}, "objects[0].box", "is missing"),
        ({"objects": [{"box": [0, 0, 1, 1], "attributes": -1}]}, "objects[0].attributes", "wanted 0 to 19, got -1"),
        ({"objects": [{"box": [0, 0, 1, 1], "attributes": 10**9}]}, "objects[0].attributes", "wanted 0 to 19"),
        ({"objects": [{"box": [0, 0, 1, 1], "atributes": 1}]}, "objects[0]", "did you mean 'attributes'"),
        ({"objects": [{"box": [0, 0, 1, 1]}], "pairs": []}, "graph", "unknown key 'pairs'"),
        ({"objects": [{"box": [0, 0, 1, 1]}], "relationships": [[0]]}, "relationships[0]", "wanted [subject, object]"),
        ({"objects": [{"box": [0, 0, 1, 1]}], "relationships": [[0, 1]]}, "relationships[0].object", "unknown object"),
    ],
)
def test_an_error_names_the_field(entry: Any, field: str, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        scene_graph.read(entry)
    assert caught.value.field == field
    assert message in caught.value.message


def test_boxes_within_the_photo() -> None:
    graph = SceneGraph((SceneObject(1, Box(0, 0, 20, 10)), SceneObject(2, Box(5, 5, 20, 5))))
    graph.check_within(height=10, width=25)
    with pytest.raises(
        ArgumentError, match=r"objects\[1\]\.box: wanted a box within the photo, 24 × 10 pixels, got one"
    ):
        graph.check_within(height=10, width=24)
