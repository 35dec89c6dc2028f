"""Random graphs of a named scene, and changes of a graph, for all of which the grammar has a caption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import SceneGraph
from training.captioning.grammar import captions_of
from training.captioning.named_scenes import NamedScene
from training.captioning.statements import MOST_ATTRIBUTES, Pair, graph_of

MOST_OBJECTS, MOST_PAIRS = 4, 2

_ATTEMPTS = 50

Objects = list[tuple[int, int]]
Pairs = list[Pair]
Change = Callable[[np.random.Generator, NamedScene, Objects, Pairs], tuple[Objects, Pairs] | None]
"""Function of a generator, a scene and a graph's objects and pairs to others, None where there are none."""


def random_graph(rng: np.random.Generator, scene: NamedScene, most_objects: int = MOST_OBJECTS) -> SceneGraph:
    """A graph of one to four objects of a scene, of 0 to 3 attributes each, and up to two pairs.

    Args:
        rng: Generator.
        scene: Scene.
        most_objects: Largest number of objects, from 1.
    """
    most = min(most_objects, MOST_OBJECTS, len(scene.objects))
    for _ in range(_ATTEMPTS):
        count = int(rng.integers(1, most + 1))
        places = rng.permutation(len(scene.objects))[:count].tolist()
        objects = [(place, int(rng.integers(MOST_ATTRIBUTES + 1))) for place in places]
        pairs: Pairs = []
        for _ in range(int(rng.integers(min(MOST_PAIRS, count - 1) + 1))):
            pairs += _another_pair(rng, places, pairs)
        graph = said(scene, objects, pairs)
        if graph is not None:
            return graph
    return graph_of(scene, [(int(rng.integers(len(scene.objects))), int(rng.integers(MOST_ATTRIBUTES + 1)))])


def changed_graphs(rng: np.random.Generator, scene: NamedScene, graph: SceneGraph) -> dict[str, SceneGraph]:
    """A graph after each of the :data:`CHANGES` that it can undergo, by the change's name."""
    objects = [(int(one.id), len(one.attributes)) for one in graph.objects]
    pairs = [(int(each.subject), int(each.object)) for each in graph.relationships]
    found: dict[str, SceneGraph] = {}
    for name, change in CHANGES.items():
        for _ in range(_ATTEMPTS // 10):
            asked = change(rng, scene, objects, pairs)
            if asked is not None and (changed := said(scene, *asked)) is not None:
                found[name] = changed
                break
    return found


def said(scene: NamedScene, objects: Sequence[tuple[int, int]], pairs: Sequence[Pair]) -> SceneGraph | None:
    """The graph, with a caption in every wording as its phrase the first; None where there is none."""
    try:
        graph = graph_of(scene, objects, pairs)
        phrase = captions_of(scene, graph)[0]
    except ArgumentError:
        return None
    return SceneGraph(graph.objects, graph.relationships, phrase)


def _another_pair(rng: np.random.Generator, places: Sequence[int], pairs: Pairs) -> Pairs:
    """A list with a new pair, of objects that are no pair in either direction; empty if there are none."""
    taken = {frozenset(pair) for pair in pairs}
    free = [(one, other) for one in places for other in places if one != other and frozenset((one, other)) not in taken]
    return [free[int(rng.integers(len(free)))]] if free else []


def _drop_object(
    rng: np.random.Generator, scene: NamedScene, objects: Objects, pairs: Pairs
) -> tuple[Objects, Pairs] | None:
    if len(objects) < 2:
        return None
    gone = objects[int(rng.integers(len(objects)))]
    return [one for one in objects if one != gone], [pair for pair in pairs if gone[0] not in pair]


def _add_object(
    rng: np.random.Generator, scene: NamedScene, objects: Objects, pairs: Pairs
) -> tuple[Objects, Pairs] | None:
    free = sorted(set(range(len(scene.objects))) - {place for place, _ in objects})
    if not free or len(objects) == MOST_OBJECTS:
        return None
    return [*objects, (int(rng.choice(free)), int(rng.integers(MOST_ATTRIBUTES + 1)))], pairs


def _change_attributes(by: int) -> Change:
    def change(
        rng: np.random.Generator, scene: NamedScene, objects: Objects, pairs: Pairs
    ) -> tuple[Objects, Pairs] | None:
        able = [number for number, (_, count) in enumerate(objects) if 0 <= count + by <= MOST_ATTRIBUTES]
        if not able:
            return None
        chosen = int(rng.choice(able))
        return [(place, count + by * (number == chosen)) for number, (place, count) in enumerate(objects)], pairs

    return change


def _reverse(
    rng: np.random.Generator, scene: NamedScene, objects: Objects, pairs: Pairs
) -> tuple[Objects, Pairs] | None:
    if not pairs:
        return None
    chosen = int(rng.integers(len(pairs)))
    return objects, [pair[::-1] if number == chosen else pair for number, pair in enumerate(pairs)]


def _move(rng: np.random.Generator, scene: NamedScene, objects: Objects, pairs: Pairs) -> tuple[Objects, Pairs] | None:
    if not pairs:
        return None
    chosen = int(rng.integers(len(pairs)))
    moved = _another_pair(rng, [place for place, _ in objects], pairs)
    return (objects, [*pairs[:chosen], *moved, *pairs[chosen + 1 :]]) if moved else None


def _remove(
    rng: np.random.Generator, scene: NamedScene, objects: Objects, pairs: Pairs
) -> tuple[Objects, Pairs] | None:
    if not pairs:
        return None
    chosen = int(rng.integers(len(pairs)))
    return objects, pairs[:chosen] + pairs[chosen + 1 :]


CHANGES: Mapping[str, Change] = {
    "object dropped": _drop_object,
    "object added": _add_object,
    "attribute added": _change_attributes(1),
    "attribute removed": _change_attributes(-1),
    "relation reversed": _reverse,
    "relation moved": _move,
    "relation removed": _remove,
}
"""Changes of a graph by name: each asks for another caption of the same scene."""
