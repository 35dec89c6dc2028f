"""Entries of answers about captions, and about the words that were explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from imagexplain.attribution.groups.directional import GroupScores, group_scores
from imagexplain.models.captioners.decoder import FLOW_STEPS
from imagexplain.models.captioners.search import Caption
from imagexplain.models.captioners.vocabulary import Vocabulary
from imagexplain.serving.path_attribution import PathAttribution
from imagexplain.serving.prepared_graph import PreparedGraph
from imagexplain.serving.word_attribution import GLOBAL, WordAttributions, WordsToExplain, label_of
from imagexplain.vision.scene_graph import Box, Node

WHOLE = "whole"
"""Label of all features together, as a group."""


@dataclass(frozen=True)
class Region:
    """A box and what the nodes that look at it carry together.

    Attributes:
        box: Box over the photo.
        nodes: Places of the nodes.
        attribution: Sum of their attributions.
    """

    box: Box
    nodes: tuple[int, ...]
    attribution: float


def captioned_graph(graph: PreparedGraph, captions: Sequence[Caption], vocabulary: Vocabulary) -> dict[str, Any]:
    """The entries of a graph with its captions, best first."""
    return {
        **_caption(captions[0], vocabulary),
        "n_best": [_scored(caption, vocabulary) for caption in captions],
        **_nodes(graph),
    }


def caption_tensors(captions: Sequence[Sequence[Caption]]) -> dict[str, torch.Tensor]:
    """Tensors of the best caption of each graph, by name and the graph's place."""
    found: dict[str, torch.Tensor] = {}
    for place, own in enumerate(captions):
        best = own[0]
        found[f"words.{place}"] = torch.tensor(best.words)
        for name in ("log_probabilities", "attention", "beta", "flow_gate"):
            found[f"{name}.{place}"] = getattr(best, name)
    return found


def explained_graph(words: WordsToExplain, found: WordAttributions, vocabulary: Vocabulary) -> dict[str, Any]:
    """The entries of a graph with the explanation of its caption's words."""
    seen = words.graph.seen
    result = {
        **_caption(words.caption, vocabulary),
        "own_caption": words.own,
        "score_kind": words.kind,
        **_nodes(words.graph),
        "words": [
            _word(words, position, one, vocabulary)
            for position, one in zip(words.positions, found.features, strict=True)
        ],
    }
    if found.pixels is not None and seen is not None:
        height, width = seen.pixels.shape[1:]
        result["map"] = {
            "baseline": words.map_baseline,
            "height": height,
            "width": width,
            "words": [
                {"word": vocabulary.words[words.caption.words[position]], "position": position, **_path(words, one)}
                for position, one in zip(words.positions, found.pixels, strict=True)
            ],
        }
    return result


def explanation_tensors(words: WordsToExplain, found: WordAttributions, place: int) -> dict[str, torch.Tensor]:
    """Tensors of an explanation, by name and the graph's place: attributions to each value of features and pixels."""
    nodes, region = words.graph.regions.shape
    packed = torch.stack([one.attribution.flatten() for one in found.features])  # (K, N·region + image)
    regions, image = packed.split([nodes * region, packed.shape[1] - nodes * region], 1)
    tensors = {
        f"positions.{place}": torch.tensor(words.positions),
        f"node_attribution.{place}": regions.unflatten(1, (nodes, region)),
        f"global_attribution.{place}": image,
        f"attention.{place}": words.caption.attention,
    }
    if found.pixels is not None:
        tensors[f"pixel_attribution.{place}"] = torch.stack([one.attribution for one in found.pixels])
    return tensors


def explanation_bytes(words: WordsToExplain) -> int:
    """Bytes that the tensors of an explanation take."""
    values = words.graph.regions.numel() + words.graph.image.numel()
    if words.map_baseline is not None and words.graph.seen is not None:
        values += words.graph.seen.pixels.numel()
    return 4 * values * len(words.positions)


def scores_of(words: WordsToExplain, one: PathAttribution) -> GroupScores:
    """The scores of the groups of one word: its nodes in order, the global feature, and the whole."""
    (integral,) = one.integrals
    return group_scores(integral.attribution, integral.difference, words.groups.family)


def regions_of(graph: PreparedGraph, attributions: Sequence[float]) -> list[Region]:
    """The boxes that a graph looks at, the largest attribution first; nodes with one box count together.

    Args:
        graph: Graph of N nodes.
        attributions: Attribution of each node, and whatever follows.
    """
    places: dict[Box, list[int]] = {}
    for index, box in enumerate(graph.boxes):
        places.setdefault(box, []).append(index)
    found = [
        Region(box, tuple(indices), sum(attributions[index] for index in indices)) for box, indices in places.items()
    ]
    return sorted(found, key=lambda region: region.attribution, reverse=True)


def _scored(caption: Caption, vocabulary: Vocabulary) -> dict[str, Any]:
    """A caption with its scores: plain, and divided by the number of words."""
    rows = zip(vocabulary.spelled(caption.words), caption.log_probabilities.tolist(), strict=True)
    return {
        "caption": vocabulary.caption(caption.words),
        "log_probability": caption.log_probability,
        "mean_log_probability": caption.mean_log_probability,
        "ended": caption.ended,
        "tokens": [{"word": word, "log_probability": log_probability} for word, log_probability in rows],
    }


def _caption(caption: Caption, vocabulary: Vocabulary) -> dict[str, Any]:
    """A caption with its scores and what the model attended to at each word."""
    result = _scored(caption, vocabulary)
    attended = zip(caption.attention.tolist(), caption.beta.tolist(), caption.flow_gate.tolist(), strict=True)
    result["tokens"] = [
        {**token, "attention": attention, "beta": beta, "flow_gate": dict(zip(FLOW_STEPS, gate, strict=True))}
        for token, (attention, beta, gate) in zip(result["tokens"], attended, strict=True)
    ]
    return result


def _nodes(graph: PreparedGraph) -> dict[str, Any]:
    named = {} if graph.given.name is None else {"graph": graph.given.name}
    return {
        **named,
        "nodes": [_node(node) for node in graph.layout.nodes],
        "dropped": [_node(node) for node in graph.layout.dropped],
    }


def _node(node: Node) -> dict[str, Any]:
    box = node.box
    entry: dict[str, Any] = {"role": node.role, "name": node.name, "box": [box.x, box.y, box.width, box.height]}
    if node.role == "relationship":
        return {**entry, "subject_id": node.objects[0], "object_id": node.objects[-1]}
    return {**entry, "object_id": node.objects[0], "order": node.order}


def _word(words: WordsToExplain, position: int, one: PathAttribution, vocabulary: Vocabulary) -> dict[str, Any]:
    graph, scores, number = words.graph, scores_of(words, one), words.caption.words[position]
    kinds = [node.role for node in graph.layout.nodes]
    columns = {
        name: getattr(scores, name).tolist() for name in ("attribution", "directional", "dividend", "value", "norm")
    }
    groups = [
        {"label": label, "kind": kind, **dict(zip(columns, row, strict=True))}
        for label, kind, row in zip(
            [*words.groups.family.labels[:-1], WHOLE],
            [*kinds, GLOBAL, WHOLE],
            zip(*columns.values(), strict=True),
            strict=True,
        )
    ]
    attributions = columns["attribution"]
    largest = max(range(len(kinds)), key=attributions.__getitem__)
    region = regions_of(graph, attributions)[0]
    box = region.box
    return {
        "word": vocabulary.words[number],
        "position": position,
        **_path(words, one),
        "groups": groups,
        "largest_node": {"index": largest, "label": label_of(graph.layout.nodes[largest])},
        "largest_region": {
            "box": [box.x, box.y, box.width, box.height],
            "nodes": list(region.nodes),
            "attribution": region.attribution,
        },
    }


def _path(words: WordsToExplain, one: PathAttribution) -> dict[str, Any]:
    groups = words.groups if one.attribution.shape[:2] == (1, 1) else None
    entry: dict[str, Any] = {
        "score": one.score,
        "baseline_score": one.baseline_score,
        "residual": one.residual,
        "relative_residual": one.relative_residual(groups),
        "evaluations": one.evaluations,
    }
    if words.path.tolerance is not None:
        entry |= {"tolerance": words.path.tolerance, "converged": one.converged, "stability": one.stability}
    else:
        entry |= {"quadrature": words.path.quadrature, "steps": words.path.steps}
    return entry
