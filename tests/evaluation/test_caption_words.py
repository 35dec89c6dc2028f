"""Words of captions against the nodes of what they name, on graphs and attributions made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.caption_words import PAIR, ScoredWord, objects_of, scored, shares_of, study_words
from imagexplain.vision.scene_graph import Box
from training.captioning import demonstration
from training.captioning.command import REGION_ENCODER
from training.captioning.grammar import NamingWord, naming_words, parse
from training.captioning.named_scenes import NamedObject, NamedScene
from training.captioning.sources import scene_vocabulary
from training.captioning.statements import Statements, graph_of
from training.captioning.train_region_encoder import load_region_encoder

OBJECTS = (
    NamedObject("circle", "red", "striped", "large", Box(10, 10, 60, 60)),
    NamedObject("star", "blue", "plain", "large", Box(90, 20, 60, 60)),
    NamedObject("star", "green", "dotted", "small", Box(20, 110, 30, 30)),
)
SCENE = NamedScene(np.zeros((160, 160, 3), dtype=np.uint8), OBJECTS)
GRAPH = graph_of(SCENE, [(1, 1), (0, 0)], [(1, 0)])
"""Nodes: the star, its colour, the circle, and the relationship from star to circle."""


def said(caption: str) -> Statements:
    found = parse(caption)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("a blue star is right of a circle", (1, 0)),
        ("a circle is left of a blue star", None),  # the pair the other way round
        ("a green star is right of a circle", None),  # which is not in the graph
        ("a star is right of a circle", None),  # without the attribute
        ("a blue star is below a circle", (1, 0)),  # the relation itself is not asked about here
        ("a blue star", None),
    ],
)
def test_objects_of_a_caption(caption: str, objects: tuple[int, ...] | None) -> None:
    assert objects_of(said(caption), SCENE, GRAPH) == objects


def test_objects_that_cannot_be_told_apart() -> None:
    graph = graph_of(SCENE, [(1, 0), (2, 0)])
    assert objects_of(said("a star and a star"), SCENE, graph) is None
    graph = graph_of(SCENE, [(1, 1), (2, 0)])
    assert objects_of(said("a star and a blue star"), SCENE, graph) == (2, 1)


def test_a_word_counts_where_its_object_has_the_largest_value() -> None:
    nodes, attention = GRAPH.nodes, torch.tensor([0.1, 0.1, 0.5, 0.3])
    attribution = torch.tensor([0.5, 2.0, -3.0, 1.0])
    colour = scored(NamingWord(1, "colour", (0,)), (1, 0), GRAPH, nodes, attribution, attention)
    assert colour == [ScoredWord("colour", True, False, 0.5)]
    relation = scored(NamingWord(4, "relation", (0, 1)), (1, 0), GRAPH, nodes, attribution, attention)
    assert relation == [ScoredWord("relation", False, False, 0.25), ScoredWord(PAIR, True, True, 1.0)]
    shares = shares_of([*colour, *relation])
    assert shares.words == 3
    assert (shares.attribution, shares.attention, shares.chance) == pytest.approx((2 / 3, 1 / 3, 1.75 / 3))


def test_words_that_name_something() -> None:
    assert naming_words("a red red") == ()
    text = "there is a big striped red circle to the left of a star and the circle of the same colour as a ring"
    assert [(text.split()[word.place], word.kind, word.mentions) for word in naming_words(text)] == [
        ("big", "size", (0,)),
        ("striped", "texture", (0,)),
        ("red", "colour", (0,)),
        ("circle", "shape", (0,)),
        ("left", "relation", (0, 1)),
        ("star", "shape", (1,)),
        ("circle", "shape", (0,)),
        ("same", "relation", (0, 2)),
        ("colour", "relation", (0, 2)),
        ("ring", "shape", (2,)),
    ]


def test_a_captioner_that_says_no_caption_has_no_words() -> None:
    scenes = demonstration.encoded_scenes(load_region_encoder(REGION_ENCODER), 77, 3)
    model = demonstration.new_captioner(scenes[0].image.shape[0], width=8).eval()
    items = demonstration.fixed_items(scenes, 3, 2)
    found = study_words(model, scene_vocabulary(), items, scenes, 2)
    several = sum(len(item.graph.objects) > 1 for item in items)
    assert (found.kinds, found.captions, found.left_out, found.residual) == ({}, 0, several, 0)
