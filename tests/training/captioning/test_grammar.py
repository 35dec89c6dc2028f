from __future__ import annotations

import numpy as np
import pytest

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.captioning.grammar import MOST_WORDS, WORDINGS, captions_of, parse, say
from training.captioning.named_scenes import NamedObject, NamedScene, named_scene
from training.captioning.random_graphs import CHANGES, changed_graphs, random_graph, said
from training.captioning.statements import Clause, Mention, Statements, graph_of, statements_of

OBJECTS = (
    NamedObject("circle", "red", "striped", "large", Box(10, 10, 60, 60)),
    NamedObject("square", "orange", "plain", "large", Box(90, 20, 60, 60)),
    NamedObject("star", "red", "dotted", "small", Box(20, 110, 30, 30)),
    NamedObject("star", "blue", "checked", "large", Box(95, 95, 60, 60)),
)
SCENE = NamedScene(np.zeros((160, 160, 3), dtype=np.uint8), OBJECTS)


@pytest.mark.parametrize(
    ("objects", "pairs", "captions"),
    [
        ([(0, 0)], [], ("a circle", "there is a circle", "a circle")),
        ([(1, 1)], [], ("an orange square", "there is an orange square", "an orange square")),
        (
            [(0, 3), (1, 2)],
            [(0, 1)],
            (
                "a large striped red circle is left of a plain orange square",
                "there is a big striped red circle to the left of a plain orange square",
                "a big striped red circle is on the left of a plain orange square",
            ),
        ),
        (  # the first holds: the colour before size and side
            [(0, 0), (2, 0)],
            [(2, 0)],
            (
                "a star is the same colour as a circle",
                "there is a star of the same colour as a circle",
                "a star has the colour of a circle",
            ),
        ),
        (  # the end of two pairs; objects from left to right, the first as it was given
            [(3, 0), (1, 0), (2, 1)],
            [(3, 1), (2, 1)],
            (
                "a star is below a square and a red star is smaller than the square",
                "there is a star below a square and a red star smaller than the square",
                "a star is under a square and a red star is smaller than the square",
            ),
        ),
        (
            [(1, 0), (3, 0), (0, 0)],
            [(0, 1)],
            (
                "a circle is left of a square and a star",
                "there is a circle to the left of a square and a star",
                "a circle is on the left of a square and a star",
            ),
        ),
    ],
)
def test_captions_by_hand(objects: list, pairs: list, captions: tuple[str, ...]) -> None:
    assert captions_of(SCENE, graph_of(SCENE, objects, pairs)) == captions


def test_statements_by_hand() -> None:
    graph = graph_of(SCENE, [(3, 0), (1, 2)], [(3, 1)])
    assert [one.name for one in graph.objects] == ["star", "square"]
    assert graph.objects[1].attributes == ("orange", "plain")
    assert [(each.subject, each.object, each.name) for each in graph.relationships] == [(3, 1, "below")]
    statements = statements_of(SCENE, graph)
    assert statements == Statements((Mention("star"), Mention("square", ("orange", "plain"))), (Clause(0, "below", 1),))
    assert statements.related == ((0, "below", 1),)


def test_names_in_a_graph_do_not_count() -> None:
    def nameless(graph: SceneGraph) -> SceneGraph:
        objects = tuple(SceneObject(one.id, one.box, ("",) * len(one.attributes)) for one in graph.objects)
        return SceneGraph(objects, tuple(Relationship(each.subject, each.object) for each in graph.relationships))

    graph = graph_of(SCENE, [(0, 3), (2, 1)], [(0, 2)])
    assert captions_of(SCENE, nameless(graph)) == captions_of(SCENE, graph)


def test_every_graph_and_changed_graph_comes_back_from_its_captions() -> None:
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for index in range(60):
        scene = named_scene(11, index)
        for graph in [random_graph(rng, scene) for _ in range(4)]:
            changed = changed_graphs(rng, scene, graph)
            seen |= changed.keys()
            for one in [graph, *changed.values()]:
                asked = statements_of(scene, one)
                assert asked.true_of(scene) and asked.answers(asked)
                for caption in captions_of(scene, one):
                    assert len(caption.split()) <= MOST_WORDS
                    assert parse(caption) == asked, caption
            shapes = [one.name for one in graph.objects]
            for one in changed.values() if len(set(shapes)) == len(shapes) else ():
                assert not statements_of(scene, one).answers(statements_of(scene, graph)), one.phrase
    assert seen == set(CHANGES)


def test_random_graphs_depend_on_the_generator_only_and_may_be_of_one_object() -> None:
    scene = named_scene(11, 0)
    one, other = (random_graph(np.random.default_rng(5), scene) for _ in range(2))
    assert one == other
    rng = np.random.default_rng(1)
    assert all(len(random_graph(rng, scene, most_objects=1).objects) == 1 for _ in range(20))


def test_wordings_of_several_kinds_in_one_caption_are_read() -> None:
    found = parse("there is a big striped red circle is above a star and a ring to the left of the star")
    assert found is not None
    assert found.objects == (Mention("circle", ("red", "striped", "large")), Mention("star"), Mention("ring"))
    assert found.related == ((0, "above", 1), (2, "left of", 1))


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "there is",
        "circle",
        "a",
        "an circle",
        "a orange star",
        "a red",
        "a red striped circle",
        "a large red circle",
        "a red red circle",
        "a small plain plain red circle",
        "the circle",
        "a circle and",
        "a circle a star",
        "a circle is above",
        "a circle is above the star",
        "a circle is a star",
        "a circle and the circle",
        "a circle is above a circle and the circle is left of a star",
        "a circle is above a star and the circle is left of a circle",
        "a dog is above a star",
        "a circle is above a star .",
    ],
)
def test_what_is_no_caption_has_no_statements(caption: str) -> None:
    assert parse(caption) is None


def test_statements_are_true_of_a_scene_or_not() -> None:
    def true(caption: str) -> bool:
        statements = parse(caption)
        assert statements is not None
        return statements.true_of(SCENE)

    assert true("a red star and a star") and true("a star is bigger than a star")
    assert true("a circle is above a star") and true("a circle is bigger than a star")
    assert not true("a red star and a red star") and not true("a plain red circle")
    assert not true("a circle is below a star") and not true("a circle and a circle")
    assert not true("a square is the same colour as a star") and not true("a ring")


def test_a_caption_answers_a_graph_whatever_the_names_and_the_order() -> None:
    asked = parse("a red circle is left of a square and a star")
    assert asked is not None

    def answers(caption: str) -> bool:
        statements = parse(caption)
        assert statements is not None
        return statements.answers(asked)

    assert answers("a star and a blue circle is bigger than a square")
    assert not answers("a red circle is left of a square")
    assert not answers("a circle is left of a square and a star")
    assert not answers("a square is left of a red circle and a star")
    assert not answers("a red circle and a square and a star")
    assert not answers("a red circle is left of a star and a square")
    assert not answers("a red circle is left of a ring and a star")


@pytest.mark.parametrize(
    ("objects", "relationships", "message"),
    [
        ([9], [], "wanted ids of 0 … 3, got 9"),
        (["0"], [], "wanted ids of 0 … 3, got '0'"),
        ([0], [(0, 0)], "wanted pairs of which a relation holds, got 0 and 0"),
        ([0, 1], [(0, 1), (0, 1)], "wanted each pair once, got one twice"),
    ],
)
def test_graphs_without_statements_are_refused(objects: list, relationships: list, message: str) -> None:
    graph = SceneGraph(
        tuple(SceneObject(number, Box(0, 0, 1, 1)) for number in objects),
        tuple(Relationship(*pair) for pair in relationships),
    )
    with pytest.raises(ArgumentError, match=message):
        statements_of(SCENE, graph)


def test_more_than_three_attributes_are_refused() -> None:
    graph = SceneGraph((SceneObject(0, Box(0, 0, 1, 1), ("",) * 4),))
    with pytest.raises(ArgumentError, match="wanted at most 3 attributes, got 4"):
        statements_of(SCENE, graph)
    with pytest.raises(ArgumentError, match="wanted 0 … 3, got 4"):
        graph_of(SCENE, [(0, 4)])


def test_what_is_too_long_or_refers_to_one_of_several_is_refused() -> None:
    long = graph_of(SCENE, [(0, 3), (1, 3), (2, 3), (3, 3)])
    assert len(say(statements_of(SCENE, long)).split()) == MOST_WORDS
    with pytest.raises(ArgumentError, match="wanted a caption of at most 23 words, got 25"):
        say(statements_of(SCENE, long), WORDINGS[1])
    assert said(SCENE, [(0, 3), (1, 3), (2, 3), (3, 3)], []) is None
    with pytest.raises(ArgumentError, match="wanted one star to refer to, got 2"):
        captions_of(SCENE, graph_of(SCENE, [(2, 0), (3, 0), (0, 0)], [(2, 3), (3, 0)]))
