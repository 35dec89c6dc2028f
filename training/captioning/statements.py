"""Statements of a caption: objects with attributes, and relations of pairs; what a scene and its graph ask for.

The network sees no names, so a convention makes the statements a function of the scene and its graph: of one attribute
the caption says the colour, of two colour and texture, of three the size too; of a pair it says the first of
:func:`~training.captioning.named_scenes.relations`. Objects come in the order of the graph, a pair with its subject,
and an object that is only the end of pairs with the first of these.

A captioner knows which object is the first, but of the order of the others it sees nothing, nor of the order of the
pairs. :func:`graph_of` therefore puts both in an order that can be seen: objects from left to right, pairs by the place
of their subject and then of their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Relationship, SceneGraph, SceneObject
from training.captioning.named_scenes import NamedObject, NamedScene, relations

MOST_ATTRIBUTES = 3

Pair = tuple[int, int]
"""Subject and object of a relation, as places in a list of objects."""


@dataclass(frozen=True)
class Mention:
    """An object as a caption names it.

    Attributes:
        shape: Shape.
        attributes: Colour, then texture, then size, as many as are said.
    """

    shape: str
    attributes: tuple[str, ...] = ()

    def fits(self, one: NamedObject) -> bool:
        """Tell whether all that is said is true of an object."""
        return one.shape == self.shape and names_of(one)[: len(self.attributes)] == self.attributes


@dataclass(frozen=True)
class Clause:
    """A clause: an object that is there, or its relation to another.

    Attributes:
        subject: Place of the object among the caption's.
        relation: Relation to the other object, empty where there is none.
        other: Place of that object; None where there is none.
    """

    subject: int
    relation: str = ""
    other: int | None = None


@dataclass(frozen=True)
class Statements:
    """The statements of a caption.

    Attributes:
        objects: Objects in the order in which they are mentioned first.
        clauses: Clauses in their order.
    """

    objects: tuple[Mention, ...]
    clauses: tuple[Clause, ...]

    @property
    def related(self) -> tuple[tuple[int, str, int], ...]:
        """Subject, relation and object of each clause that relates two."""
        return tuple((one.subject, one.relation, one.other) for one in self.clauses if one.other is not None)

    def true_of(self, scene: NamedScene) -> bool:
        """Tell whether a scene has different objects of which all statements are true.

        A relation is true if it is one of those that hold, the first or not.
        """
        return any(
            all(mention.fits(one) for mention, one in zip(self.objects, chosen, strict=True))
            and all(name in relations(chosen[subject], chosen[other]) for subject, name, other in self.related)
            for chosen in permutations(scene.objects, len(self.objects))
        )

    def answers(self, asked: Statements) -> bool:
        """Tell whether these are the asked objects, with as many attributes each, and the asked pairs, so directed.

        The order does not count, nor which attributes and relations are named: those are true or not of the scene.
        """
        if len(self.objects) != len(asked.objects):
            return False
        pairs = sorted((subject, other) for subject, _, other in asked.related)
        own = [(subject, other) for subject, _, other in self.related]
        wanted = [(one.shape, len(one.attributes)) for one in asked.objects]
        given = [(one.shape, len(one.attributes)) for one in self.objects]
        return any(
            all(wanted[place] == one for place, one in zip(places, given, strict=True))
            and sorted((places[subject], places[other]) for subject, other in own) == pairs
            for places in permutations(range(len(wanted)))
        )


def names_of(one: NamedObject) -> tuple[str, str, str]:
    """Colour, texture and size of an object: the names that its first, second and third attribute stand for."""
    return one.colour, one.texture, one.size


def graph_of(scene: NamedScene, objects: Sequence[tuple[int, int]], pairs: Iterable[Pair] = ()) -> SceneGraph:
    """The graph of some of a scene's objects; identifiers are places in the scene, names are those of the convention.

    Args:
        scene: Scene.
        objects: Places of the objects and numbers of their attributes, 0 … 3. The first stays the first; the others
            are put in order from left to right.
        pairs: Places in the scene of the objects related, subject first.

    Raises:
        ArgumentError: more than three attributes, or what no graph can be of.
    """
    for _, count in objects:
        if not 0 <= count <= MOST_ATTRIBUTES:
            raise ArgumentError("attributes", f"wanted 0 … {MOST_ATTRIBUTES}, got {count}")
    order = [*objects[:1], *sorted(objects[1:], key=lambda one: (scene.objects[one[0]].centre, one))]
    rank = {place: number for number, (place, _) in enumerate(order)}
    chosen = [(place, scene.objects[place], count) for place, count in order]
    return SceneGraph(
        tuple(SceneObject(place, one.box, names_of(one)[:count], one.shape) for place, one, count in chosen),
        tuple(
            Relationship(subject, other, first_relation(scene, subject, other), number)
            for number, (subject, other) in enumerate(
                sorted(pairs, key=lambda pair: [rank.get(end, 0) for end in pair]), 1
            )
        ),
    )


def first_relation(scene: NamedScene, subject: int, other: int) -> str:
    """The relation that a caption says of two objects of a scene, empty where none holds."""
    return next(iter(relations(scene.objects[subject], scene.objects[other])), "")


def statements_of(scene: NamedScene, graph: SceneGraph) -> Statements:
    """The statements that a graph of a scene asks for.

    Args:
        scene: Scene.
        graph: Graph whose identifiers are places in the scene; its names do not count.

    Raises:
        ArgumentError: an identifier that is no place in the scene, more than three attributes, a pair twice, or one
            of which no relation holds, such as an object with itself.
    """
    for one in graph.objects:
        if not isinstance(one.id, int) or not 0 <= one.id < len(scene.objects):
            raise ArgumentError("graph", f"wanted ids of 0 … {len(scene.objects) - 1}, got {one.id!r}")
        if len(one.attributes) > MOST_ATTRIBUTES:
            raise ArgumentError("graph", f"wanted at most {MOST_ATTRIBUTES} attributes, got {len(one.attributes)}")
    pairs = [(int(each.subject), int(each.object)) for each in graph.relationships]
    if len(set(pairs)) < len(pairs):
        raise ArgumentError("graph", "wanted each pair once, got one twice")
    for subject, other in pairs:
        if subject == other or not first_relation(scene, subject, other):
            raise ArgumentError("graph", f"wanted pairs of which a relation holds, got {subject} and {other}")
    mentioned: dict[int, int] = {}

    def place(identifier: int) -> int:
        return mentioned.setdefault(identifier, len(mentioned))

    clauses: list[Clause] = []
    ends = {other for _, other in pairs}
    counts = {int(one.id): len(one.attributes) for one in graph.objects}
    for number in counts:
        own = [other for subject, other in pairs if subject == number]
        for other in own:
            clauses.append(Clause(place(number), first_relation(scene, number, other), place(other)))
        if not own and number not in ends:
            clauses.append(Clause(place(number)))
    objects = [scene.objects[number] for number in mentioned]
    mentions = (
        Mention(one.shape, names_of(one)[: counts[number]]) for number, one in zip(mentioned, objects, strict=True)
    )
    return Statements(tuple(mentions), tuple(clauses))
