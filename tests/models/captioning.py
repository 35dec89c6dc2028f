"""The original captioner's data sets, tensors and captions: the small model's and those at full size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.deterministic import reference_captioner
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import Captioner, Encoded
from imagexplain.models.captioners.graph_tensors import GraphTensors, graph_tensors, lay_out
from imagexplain.models.checkpoints import checkpoint
from imagexplain.vision import scene_graph
from imagexplain.vision.scene_graph import SceneGraph
from tests.models.reference import FIXTURES

EGA = FIXTURES / "ega"
LIMIT = 10


@dataclass(frozen=True)
class Reference:
    """Some regions with their features, and what the original computed of them.

    Attributes:
        graphs: Their scene graphs, G of them.
        nodes: Features (G, 10, region) of the nodes.
        image: Features (G, image) of the whole images.
        ids: Words (G, 25) of the captions.
        mask: Mask (G, 25) of the words that count.
        outputs: Arrays of the original's by name.
        captions: Captions of the original's: of greedy decoding and of its beam search, put right.
    """

    graphs: list[SceneGraph]
    nodes: Tensor
    image: Tensor
    ids: Tensor
    mask: Tensor
    outputs: dict[str, Tensor]
    captions: dict[str, Any]

    @property
    def tensors(self) -> GraphTensors:
        return graph_tensors([lay_out(graph, LIMIT) for graph in self.graphs], LIMIT)

    def encoded(self, model: Captioner) -> Encoded:
        with torch.no_grad():
            return model.encode(self.nodes, self.image, self.tensors)

    def greedy(self) -> list[dict[str, Any]]:
        return list(self.captions["greedy"].values())


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(EGA / name) as content:
        return {key: torch.from_numpy(content[key]) for key in content.files if content[key].dtype.kind != "U"}


@cache
def regions() -> list[SceneGraph]:
    """The ten graphs of the sample, in the order of its names."""
    folder = EGA / "small/annotation/regionfiles"
    names = np.load(folder / "val_sub_names.npy").tolist()
    return [scene_graph.read(json.loads((folder / f"{image}.json").read_text())[region]) for image, region in names]


@cache
def small() -> Reference:
    outputs, read = arrays("small_outputs.npz"), arrays("reader_limit10.npz")
    captions = json.loads((EGA / "small_captions.json").read_text())
    features = outputs["attn_fts"], outputs["mp_fts"]
    return Reference(regions(), *features, read["caption_ids"], read["caption_masks"], outputs, captions)


@cache
def full() -> Reference:
    """Four of the ten, with features of the original's width: kept as multiples of 1/64."""
    outputs, read, features = arrays("full_outputs.npz"), arrays("reader_limit10.npz"), arrays("full_features.npz")
    captions = json.loads((EGA / "full_captions.json").read_text())
    index = outputs["index"]
    return Reference(
        [regions()[place] for place in index],
        features["nodes"].float() / 64,
        features["image"],
        read["caption_ids"][index],
        read["caption_masks"][index],
        outputs,
        captions,
    )


@cache
def small_model() -> Captioner:
    return captioner.build(checkpoint.read(EGA / "small.th")).requires_grad_(False)


@cache
def full_model() -> Captioner:
    return captioner.build(reference_captioner()).requires_grad_(False)


def worst(given: Tensor, wanted: Tensor) -> float:
    """Largest error, relative to the largest absolute value that was wanted."""
    assert given.shape == wanted.shape
    return float((given.detach() - wanted).abs().max() / wanted.abs().max())
