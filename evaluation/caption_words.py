"""Words of captions against the nodes that were to decide them: attribution, attention, and chance.

In named scenes it is known what each word of a caption tells of: of one object, or of a pair. So a word's largest
attribution among the graph's nodes should be at a node of that object, or at the pair's relationship. Scored are words
under graphs of several objects, for one object has every node, and of captions whose objects can be told from one
another: what is named must be one object, not any of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean, median

import torch
from torch import Tensor

from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.paths.several_targets import integrate_targets
from imagexplain.models.captioners.captioner import Captioner
from imagexplain.models.captioners.graph_tensors import graph_tensors
from imagexplain.models.captioners.search import Caption, search
from imagexplain.models.captioners.word_scores import WordScores, pack
from imagexplain.vision.scene_graph import Node, SceneGraph
from training.captioning.grammar import NAMING, NamingWord, naming_words, parse
from training.captioning.items import CaptionItem, batch_of
from training.captioning.named_scenes import NamedScene
from training.captioning.scene_features import SceneFeatures
from training.captioning.statements import Statements
from training.captioning.vocabulary import Vocabulary

RULE = "gauss_legendre"
ALL, PAIR = "all", "relation, with the nodes of its objects"


@dataclass(frozen=True)
class ScoredWord:
    """A word, and whether its node was found.

    Attributes:
        kind: One of :data:`~training.captioning.grammar.NAMING`, or :data:`PAIR`.
        attribution: Truth of "the node with the largest attribution is one of the named ones".
        attention: The same of attention.
        chance: Share of the graph's nodes that are named.
    """

    kind: str
    attribution: bool
    attention: bool
    chance: float


@dataclass(frozen=True)
class Shares:
    """Shares of words of one kind, 0 … 1, whose node was found.

    Attributes:
        words: Number of words.
        attribution: Share by attribution.
        attention: Share by attention.
        chance: Share by a node at random.
    """

    words: int
    attribution: float
    attention: float
    chance: float


@dataclass(frozen=True)
class WordStudy:
    """The words of some captions.

    Attributes:
        kinds: Shares by kind; :data:`ALL` is of every word once, against the object or the relationship alone.
        captions: Number of captions whose words were scored.
        left_out: Number of captions that were not: not of the grammar, not what was asked, not true, or ambiguous.
        residual: Mean of the words' relative residuals.
        median_residual: Median of them.
        largest_residual: Largest of them.
    """

    kinds: dict[str, Shares]
    captions: int
    left_out: int
    residual: float
    median_residual: float
    largest_residual: float


def study_words(
    model: Captioner,
    vocabulary: Vocabulary,
    items: Iterable[CaptionItem],
    scenes: Sequence[SceneFeatures],
    steps: int,
) -> WordStudy:
    """Score the words of a captioner's own captions.

    Args:
        model: Captioner, in ``eval()``.
        vocabulary: Its words.
        items: Items, whose images are named by the numbers of their scenes; graphs of one object are passed over.
        scenes: Scenes.
        steps: Number of points of the path from features of zero, Gauss–Legendre.
    """
    words: list[ScoredWord] = []
    residuals: list[float] = []
    captions = left_out = 0
    for item in items:
        if len(item.graph.objects) == 1:
            continue
        caption = greedy_caption(model, vocabulary, item)
        text = vocabulary.decode(caption.words)
        said = parse(text)
        places = None if said is None else objects_of(said, scenes[int(item.image_name)].scene, item.graph)
        if places is None:
            left_out += 1
            continue
        naming = naming_words(text)
        attribution, own = word_attribution(model, item, caption, [word.place for word in naming], steps)
        residuals += own
        attention = caption.attention[[word.place for word in naming]]
        for word, *rows in zip(naming, attribution, attention, strict=True):
            words += scored(word, places, item.graph, item.layout.nodes, *rows)
        captions += 1
    once = [word for word in words if word.kind != PAIR]
    groups = {ALL: once, **{kind: [word for word in words if word.kind == kind] for kind in (*NAMING, PAIR)}}
    return WordStudy(
        {kind: shares_of(own) for kind, own in groups.items() if own},
        captions,
        left_out,
        fmean(residuals or [0.0]),
        median(residuals or [0.0]),
        max(residuals, default=0.0),
    )


def objects_of(said: Statements, scene: NamedScene, graph: SceneGraph) -> tuple[int, ...] | None:
    """The identifiers of the graph's objects that a caption's objects are, in the caption's order.

    None where the caption is not what was asked, is not true, or where several would fit.
    """
    asked = sorted((each.subject, each.object) for each in graph.relationships)
    found = []
    for chosen in permutations(graph.objects, len(graph.objects)):
        if len(chosen) != len(said.objects):
            return None
        ids = tuple(int(one.id) for one in chosen)
        fits = (
            mention.fits(scene.objects[own]) and len(mention.attributes) == len(one.attributes)
            for mention, own, one in zip(said.objects, ids, chosen, strict=True)
        )
        if sorted((ids[subject], ids[other]) for subject, _, other in said.related) == asked and all(fits):
            found.append(ids)
    return found[0] if len(found) == 1 else None


def scored(
    word: NamingWord,
    objects: Sequence[int],
    graph: SceneGraph,
    nodes: Sequence[Node],
    attribution: Tensor,
    attention: Tensor,
) -> list[ScoredWord]:
    """Score a word: a relation's twice, against the relationship alone, and with the nodes of its two objects.

    Args:
        word: Word.
        objects: Identifiers of the caption's objects.
        graph: Graph.
        nodes: Its N nodes.
        attribution: Attribution (N,) of the nodes.
        attention: Attention (N,) to them.
    """
    named = tuple(objects[place] for place in word.mentions)
    ends = [node.objects[0] in named for node in nodes if node.role != "relationship"]
    ends += [False] * (len(nodes) - len(ends))  # relationships come last
    wanted = {word.kind: ends}
    if word.kind == "relation":
        pair = [node.role == "relationship" and node.objects == named for node in nodes]
        wanted = {word.kind: pair, PAIR: [one or other for one, other in zip(pair, ends, strict=True)]}
    return [
        ScoredWord(kind, own[int(attribution.argmax())], own[int(attention.argmax())], sum(own) / len(own))
        for kind, own in wanted.items()
    ]


def shares_of(words: Sequence[ScoredWord]) -> Shares:
    """Shares of some words, at least one."""
    rows = torch.tensor([[word.attribution, word.attention, word.chance] for word in words], dtype=torch.float64)
    return Shares(len(words), *rows.mean(0).tolist())


@torch.no_grad()
def greedy_caption(model: Captioner, vocabulary: Vocabulary, item: CaptionItem) -> Caption:
    """The greedy caption of an item."""
    given = batch_of([item], vocabulary)
    return search(model, model.encode(given.nodes, given.image, given.graph))[0][0]


def word_attribution(
    model: Captioner, item: CaptionItem, caption: Caption, places: Sequence[int], steps: int
) -> tuple[Tensor, list[float]]:
    """Integrated gradients of words' log-probabilities, with the caption so far given, from features of zero.

    Returns:
        Attribution (K, N) of the item's nodes, and K relative residuals.
    """
    scores = WordScores(model, graph_tensors([item.layout]), caption.words, places)
    packed = pack(item.nodes, item.image)
    found = integrate_targets(
        scores, packed, torch.zeros_like(packed), torch.arange(len(places)), quadrature(RULE, steps), chunk=steps
    )
    nodes, _ = scores.unpack(torch.stack([each.attribution for each in found]))
    return nodes.sum(2), [each.relative_residual for each in found]
