"""Abstract scene graphs: the objects of a photo that a caption is to name, their attributes, and how they are related.

A captioner sees of a graph its boxes, the number and order of each object's attributes, and the pairs (subject,
object): names are labels for people, and may be left out.

A graph is read from an entry of a region file, or from a minimal form without names::

    {"objects": [{"object_id": 11, "name": "boy", "attributes": ["small"], "x": 245, "y": 182, "w": 115, "h": 173}, …],
     "relationships": [{"relationship_id": 1, "name": "on", "subject_id": 11, "object_id": 10}],
     "phrase": "a small boy on some grass"}

    {"objects": [{"box": [245, 182, 115, 173], "attributes": 1}, {"box": [91, 158, 545, 242]}],
     "relationships": [[0, 1]]}

In the minimal form an object may have a ``name``, names in place of the number of its ``attributes``, and an ``id``:
without one, its place in the list, from 0, is its id. A relationship may have a name as its third item.

Source: the region files of asg2cap (https://github.com/cshizhe/asg2cap), made from Visual Genome's region graphs; the
order of the nodes is that of its reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from imagexplain.errors import ArgumentError, shown, unknown

MAX_ATTRIBUTES = 19
"""Largest number of an object's attributes: the captioner's table of their order has twenty rows, one for no order."""

MAX_COORDINATE = 2**31
"""Bound of the coordinates and sides of a box, pixels."""

_NO_OBJECTS = "wanted at least one, got none"

Id = int | str
Role = Literal["object", "attribute", "relationship"]


@dataclass(frozen=True)
class Box:
    """Upright box over a photo, in its pixels; it covers [x, x + width) × [y, y + height).

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: Width, above 0.
        height: Height, above 0.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Corners (left, top, right, bottom); the box ends before the last two."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    @property
    def inclusive_corners(self) -> tuple[float, float, float, float]:
        """First and last pixel (left, top, right, bottom), as the original's feature files name a box."""
        return self.x, self.y, self.x + self.width - 1, self.y + self.height - 1

    def union(self, other: Box) -> Box:
        """Smallest box around this one and another."""
        left, top, right, bottom = zip(self.corners, other.corners, strict=True)
        x, y = min(left), min(top)
        return Box(x, y, max(right) - x, max(bottom) - y)


@dataclass(frozen=True)
class SceneObject:
    """Object of a scene.

    Attributes:
        id: Identifier, unique within the graph.
        box: Box around the object.
        attributes: Names of its attributes, in order, empty where they have none; their number is what counts.
        name: Name of the object, empty where it has none.
    """

    id: Id
    box: Box
    attributes: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Relationship:
    """Relationship of two objects, or of one with itself.

    Attributes:
        subject: Identifier of the object that it goes out from.
        object: Identifier of the object that it goes to.
        name: Name of the relationship, empty where it has none.
        id: Identifier in a region file, None where it has none.
    """

    subject: Id
    object: Id
    name: str = ""
    id: Id | None = None


@dataclass(frozen=True)
class Node:
    """Node of the graph as a captioner sees it: an object, one of its attributes, or a relationship.

    Attributes:
        role: Role of the node.
        objects: Identifiers of the objects that it belongs to: one, or subject and object of a relationship.
        order: Place among the object's attributes, from 1; 0 for a node that is no attribute.
        name: Name, empty where it has none.
        box: Box whose image feature the node has: the object's, for an attribute too, or the union of the two objects'.
    """

    role: Role
    objects: tuple[Id, ...]
    order: int
    name: str
    box: Box


@dataclass(frozen=True)
class SceneGraph:
    """Abstract scene graph, whole and consistent.

    Cycles, an object related to itself, several relationships of one pair and several objects in one box are all fine.

    Attributes:
        objects: Objects, at least one; a captioner's attention starts on the first.
        relationships: Relationships between them.
        phrase: Caption that a person gave for the graph, None where there is none.

    Raises:
        ArgumentError: no objects, an identifier that two objects have, a relationship with an unknown object, a box of
            no area or that is not finite, more than :data:`MAX_ATTRIBUTES` attributes; names the field.
    """

    objects: tuple[SceneObject, ...]
    relationships: tuple[Relationship, ...] = ()
    phrase: str | None = None

    def __post_init__(self) -> None:
        if not self.objects:
            raise ArgumentError("objects", _NO_OBJECTS)
        known: set[Id] = set()
        for index, one in enumerate(self.objects):
            field = f"objects[{index}]"
            if one.id in known:
                raise ArgumentError(field, f"wanted an id of its own, got {shown(one.id)} again")
            known.add(one.id)
            _check_box(one.box, field)
            if len(one.attributes) > MAX_ATTRIBUTES:
                wanted = f"wanted at most {MAX_ATTRIBUTES} of an object"
                raise ArgumentError(f"{field}.attributes", f"{wanted}, got {len(one.attributes)}")
        for index, relationship in enumerate(self.relationships):
            for role in ("subject", "object"):
                if (end := getattr(relationship, role)) not in known:
                    ids = list(map(str, (one.id for one in self.objects)))
                    raise ArgumentError(f"relationships[{index}].{role}", unknown("object id", end, ids))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Nodes in the captioner's order: each object, followed by its attributes, and then the relationships."""
        nodes: list[Node] = []
        for one in self.objects:
            nodes.append(Node("object", (one.id,), 0, one.name, one.box))
            for order, name in enumerate(one.attributes, 1):
                nodes.append(Node("attribute", (one.id,), order, name, one.box))
        boxes = {one.id: one.box for one in self.objects}
        for each in self.relationships:
            union = boxes[each.subject].union(boxes[each.object])
            nodes.append(Node("relationship", (each.subject, each.object), 0, each.name, union))
        return tuple(nodes)

    def check_within(self, height: int, width: int) -> None:
        """Raise ArgumentError, which names the field, where a box reaches beyond a photo of these sides, in pixels."""
        for index, one in enumerate(self.objects):
            left, top, right, bottom = one.box.corners
            if left < 0 or top < 0 or right > width or bottom > height:
                wanted = f"wanted a box within the photo, {width} × {height} pixels"
                given = f"one from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
                raise ArgumentError(f"objects[{index}].box", f"{wanted}, got {given}")


def read(entry: Any) -> SceneGraph:
    """Read a graph in either form: a region file's if its first object has an ``object_id``, else the minimal one.

    Raises:
        ArgumentError: like :func:`read_region` and :func:`read_minimal`.

    Example:
        >>> from imagexplain.vision import scene_graph
        >>> objects = [{"box": [0, 0, 20, 10], "attributes": 1}, {"box": [30, 5, 10, 10], "name": "ball"}]
        >>> graph = scene_graph.read({"objects": objects, "relationships": [[0, 1]]})
        >>> [(node.role, node.order) for node in graph.nodes]
        [('object', 0), ('attribute', 1), ('object', 0), ('relationship', 0)]
        >>> graph.nodes[-1].box
        Box(x=0, y=0, width=40, height=15)
    """
    objects = _objects(_mapping(entry, "graph"))
    return read_region(entry) if "object_id" in objects[0] else read_minimal(entry)


def read_region(entry: Any) -> SceneGraph:
    """Read a region file's entry; what it holds beside the keys of the module's docstring is left alone.

    ``phrase`` and a relationship's ``relationship_id`` may be missing.

    Raises:
        ArgumentError: a key is missing, or its value is of another kind than it should be; further like
            :class:`SceneGraph`.
    """
    entry = _mapping(entry, "graph")
    objects = tuple(_region_object(one, f"objects[{index}]") for index, one in enumerate(_objects(entry)))
    pairs = _list(_value(entry, "relationships", ""), "relationships")
    relationships = tuple(_region_relationship(each, f"relationships[{index}]") for index, each in enumerate(pairs))
    phrase = entry.get("phrase")
    return SceneGraph(objects, relationships, None if phrase is None else _text(phrase, "phrase"))


def read_minimal(entry: Any) -> SceneGraph:
    """Read a graph in the minimal form; ``relationships`` may be missing.

    Raises:
        ArgumentError: a key is missing or unknown, or its value is of another kind than it should be; further like
            :class:`SceneGraph`.
    """
    entry = _mapping(entry, "graph")
    _only(entry, ("objects", "relationships", "phrase"), "")
    objects = tuple(_minimal_object(one, index) for index, one in enumerate(_objects(entry)))
    pairs = _list(entry.get("relationships", []), "relationships")
    relationships = tuple(_pair(pair, f"relationships[{index}]") for index, pair in enumerate(pairs))
    phrase = entry.get("phrase")
    return SceneGraph(objects, relationships, None if phrase is None else _text(phrase, "phrase"))


def write_region(graph: SceneGraph) -> dict[str, Any]:
    """Entry of a region file, for ``json.dump``; relationships without an identifier are numbered from 1.

    Nothing is lost by it: :func:`read_region` of the entry is the graph, but for those identifiers.
    """
    entry: dict[str, Any] = {
        "objects": [
            {
                "object_id": one.id,
                "name": one.name,
                "attributes": list(one.attributes),
                "x": one.box.x,
                "y": one.box.y,
                "w": one.box.width,
                "h": one.box.height,
            }
            for one in graph.objects
        ],
        "relationships": [
            {
                "relationship_id": number if each.id is None else each.id,
                "name": each.name,
                "subject_id": each.subject,
                "object_id": each.object,
            }
            for number, each in enumerate(graph.relationships, 1)
        ],
    }
    return entry if graph.phrase is None else {**entry, "phrase": graph.phrase}


def _region_object(one: Mapping[str, Any], field: str) -> SceneObject:
    box = Box(*(_number(_value(one, key, field), f"{field}.{key}") for key in ("x", "y", "w", "h")))
    attributes = _texts(_value(one, "attributes", field), f"{field}.attributes")
    name = _text(_value(one, "name", field), f"{field}.name")
    return SceneObject(_id(_value(one, "object_id", field), f"{field}.object_id"), box, attributes, name)


def _region_relationship(each: Any, field: str) -> Relationship:
    each = _mapping(each, field)
    subject, end = (_id(_value(each, key, field), f"{field}.{key}") for key in ("subject_id", "object_id"))
    own = each.get("relationship_id")
    name = _text(_value(each, "name", field), f"{field}.name")
    return Relationship(subject, end, name, None if own is None else _id(own, f"{field}.relationship_id"))


def _minimal_object(one: Mapping[str, Any], index: int) -> SceneObject:
    field = f"objects[{index}]"
    _only(one, ("id", "name", "box", "attributes"), field)
    sides = _list(_value(one, "box", field), f"{field}.box")
    if len(sides) != 4:
        raise ArgumentError(f"{field}.box", f"wanted [x, y, width, height], got {shown(sides)}")
    box = Box(*(_number(side, f"{field}.box") for side in sides))
    attributes = one.get("attributes", 0)
    if isinstance(attributes, int) and not isinstance(attributes, bool):
        if not 0 <= attributes <= MAX_ATTRIBUTES:
            raise ArgumentError(f"{field}.attributes", f"wanted 0 to {MAX_ATTRIBUTES}, got {shown(attributes)}")
        attributes = [""] * attributes
    names = _texts(attributes, f"{field}.attributes")
    name = _text(one.get("name", ""), f"{field}.name")
    return SceneObject(_id(one.get("id", index), f"{field}.id"), box, names, name)


def _pair(pair: Any, field: str) -> Relationship:
    items = _list(pair, field)
    if len(items) not in (2, 3):
        raise ArgumentError(field, f"wanted [subject, object] or [subject, object, name], got {shown(pair)}")
    return Relationship(_id(items[0], field), _id(items[1], field), _text(items[2], field) if items[2:] else "")


def _check_box(box: Box, field: str) -> None:
    sides = {"x": box.x, "y": box.y, "w": box.width, "h": box.height}
    for name, value in sides.items():
        if not -MAX_COORDINATE < value < MAX_COORDINATE:  # nor is NaN
            raise ArgumentError(f"{field}.{name}", f"wanted a finite number of pixels, got {shown(value)}")
    for name in ("w", "h"):
        if sides[name] <= 0:
            raise ArgumentError(f"{field}.{name}", f"wanted a box with an area, got {shown(sides[name])}")


def _objects(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    objects = _list(_value(entry, "objects", ""), "objects")
    if not objects:
        raise ArgumentError("objects", _NO_OBJECTS)
    return [_mapping(one, f"objects[{index}]") for index, one in enumerate(objects)]


def _value(entry: Mapping[str, Any], key: str, field: str) -> Any:
    if key not in entry:
        raise ArgumentError(f"{field}.{key}".lstrip("."), "is missing")
    return entry[key]


def _only(entry: Mapping[str, Any], keys: Iterable[str], field: str) -> None:
    for key in entry:
        if key not in keys:
            raise ArgumentError(field or "graph", unknown("key", key, keys))


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ArgumentError(field, f"wanted an object with keys, got {shown(value)}")
    return value


def _list(value: Any, field: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ArgumentError(field, f"wanted a list, got {shown(value)}")
    return value


def _texts(value: Any, field: str) -> tuple[str, ...]:
    return tuple(_text(item, f"{field}[{index}]") for index, item in enumerate(_list(value, field)))


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(field, f"wanted a string, got {shown(value)}")
    return value


def _id(value: Any, field: str) -> Id:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ArgumentError(field, f"wanted a whole number or a string, got {shown(value)}")
    return value


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(field, f"wanted a number, got {shown(value)}")
    return value
