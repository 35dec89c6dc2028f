"""Measures of a captioner of named scenes: scores against what ignores the graph, control, and truth.

Scores alone say little: a caption of the same scene has many of its words whatever the graph. So a captioner is
compared with a true caption of another graph of the scene, which is the best that one can do who does not look at the
graph; with one constant caption; with the same captioner without edges; and with another scene's features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from imagexplain.models.captioners.captioner import Captioner
from imagexplain.vision.scene_graph import SceneGraph
from training.captioning.grammar import parse
from training.captioning.items import CaptionItem
from training.captioning.random_graphs import changed_graphs
from training.captioning.scene_features import SceneFeatures
from training.captioning.scores import caption_scores
from training.captioning.sources import scene_item
from training.captioning.statements import statements_of
from training.captioning.validation import captions_for
from training.captioning.vocabulary import Vocabulary
from training.finetuning.randomness import seed_of


@dataclass(frozen=True)
class Control:
    """Obedience and truth of captions.

    Attributes:
        answers: Share of captions that name exactly the asked objects, with as many attributes, and the asked pairs in
            the asked direction, 0 … 1.
        true: Share of captions all of whose statements are true of the scene.
        exact: Share of captions that are the first wording's, word by word.
        count: Number of captions.
    """

    answers: float
    true: float
    exact: float
    count: int


def control_of(captions: Mapping[str, str], items: Iterable[CaptionItem], scenes: Sequence[SceneFeatures]) -> Control:
    """Obedience and truth of captions of scenes.

    Args:
        captions: Caption by the item's key.
        items: Items, whose images are named by the numbers of their scenes.
        scenes: Scenes.
    """
    rows = []
    for item in items:
        scene, caption = scenes[int(item.image_name)].scene, captions[item.key]
        said = parse(caption)
        answers = said is not None and said.answers(statements_of(scene, item.graph))
        rows.append((answers, said is not None and said.true_of(scene), caption == item.caption))
    answers, true, exact = np.mean(rows, axis=0).tolist()
    return Control(answers, true, exact, len(rows))


def changed_items(items: Iterable[CaptionItem], scenes: Sequence[SceneFeatures], seed: int) -> list[CaptionItem]:
    """Items of every change of every graph; regions are named by the graph's region and the change."""
    found = []
    for item in items:
        number = int(item.image_name)
        rng = np.random.default_rng([seed_of("changes", seed, item.key)])
        for name, graph in changed_graphs(rng, scenes[number].scene, item.graph).items():
            found.append(scene_item(scenes[number], graph, item.image_name, f"{item.region} {name}"))
    return found


def control_by_change(
    captions: Mapping[str, str], items: Sequence[CaptionItem], scenes: Sequence[SceneFeatures]
) -> dict[str, Control]:
    """Obedience and truth by the name of the change, of :func:`changed_items`; ``all`` for all of them."""
    groups: dict[str, list[CaptionItem]] = {"all": list(items)}
    for item in items:
        groups.setdefault(item.region.partition(" ")[2], []).append(item)
    return {name: control_of(captions, own, scenes) for name, own in groups.items()}


def compared(
    model: Captioner, vocabulary: Vocabulary, items: Sequence[CaptionItem], *, with_java: bool = False
) -> dict[str, dict[str, float]]:
    """Scores of a captioner, and of what it is compared with, on items of scenes with at least two graphs each.

    Args:
        model: Captioner, in ``eval()``.
        vocabulary: Its words.
        items: Items of named scenes.
        with_java: Choice to score METEOR too.
    """
    references = {item.key: item.references for item in items}
    own = captions_for(model, items, vocabulary)
    constant = max(own.values(), key=list(own.values()).count)
    others = _other_graph(items)
    shifted = [*items[len(items) // 2 :], *items[: len(items) // 2]]
    candidates = {
        "captioner": own,
        "another graph's true caption": others,
        "its most frequent caption": dict.fromkeys(own, constant),
        "without edges": captions_for(model, [_without_edges(item) for item in items], vocabulary),
        "another scene's features": captions_for(
            model, [_with_features(item, other) for item, other in zip(items, shifted, strict=True)], vocabulary
        ),
    }
    return {
        name: dict(caption_scores(captions, references, with_java=with_java).mean)
        for name, captions in candidates.items()
    }


def relationships_removed(
    model: Captioner, vocabulary: Vocabulary, items: Iterable[CaptionItem], *, with_java: bool = False
) -> dict[str, dict[str, float]]:
    """Scores of a captioner with and without edges, on those items that have relationships."""
    related = [item for item in items if item.graph.relationships]
    references = {item.key: item.references for item in related}
    candidates = {"captioner": related, "without edges": [_without_edges(item) for item in related]}
    return {
        name: dict(caption_scores(captions_for(model, own, vocabulary), references, with_java=with_java).mean)
        for name, own in candidates.items()
    }


def measured(
    model: Captioner,
    vocabulary: Vocabulary,
    items: Sequence[CaptionItem],
    scenes: Sequence[SceneFeatures],
    seed: int,
    *,
    with_java: bool = False,
) -> dict[str, Any]:
    """Scores, control and truth of a captioner.

    Args:
        model: Captioner, in ``eval()``.
        vocabulary: Its words.
        items: Items of named scenes, two or more of each scene.
        scenes: Scenes.
        seed: Seed of the changes of graphs.
        with_java: Choice to score METEOR too.

    Returns:
        ``scores`` by what is compared, ``related``, those of graphs with relationships alone, ``graphs``, control and
        truth of the captions, and ``changes``, those by the change of a graph.
    """
    changed = changed_items(items, scenes, seed)
    control = control_by_change(captions_for(model, changed, vocabulary), changed, scenes)
    return {
        "scores": compared(model, vocabulary, items, with_java=with_java),
        "related": relationships_removed(model, vocabulary, items, with_java=with_java),
        "graphs": asdict(control_of(captions_for(model, items, vocabulary), items, scenes)),
        "changes": {name: asdict(own) for name, own in control.items()},
    }


def _other_graph(items: Sequence[CaptionItem]) -> dict[str, str]:
    """The caption of the scene's next graph, by key."""
    by_image: dict[str, list[CaptionItem]] = {}
    for item in items:
        by_image.setdefault(item.image_name, []).append(item)
    return {
        item.key: own[(place + 1) % len(own)].caption for own in by_image.values() for place, item in enumerate(own)
    }


def _without_edges(item: CaptionItem) -> CaptionItem:
    """The item with its objects and attributes alone."""
    graph = SceneGraph(item.graph.objects, (), item.graph.phrase)
    kept = [place for place, node in enumerate(item.layout.nodes) if node.role != "relationship"]
    layout = replace(item.layout, nodes=tuple(item.layout.nodes[place] for place in kept))
    return replace(item, graph=graph, layout=layout, nodes=item.nodes[kept])


def _with_features(item: CaptionItem, other: CaptionItem) -> CaptionItem:
    """The item with another scene's image, and its nodes' features as far as they go, again and again."""
    rows = torch.arange(len(item.nodes)) % len(other.nodes)
    return replace(item, nodes=other.nodes[rows], image=other.image)
