"""The demonstration captioner: its scenes, its recipe, and where its weights begin.

What differs from the authors' recipe, and why: features are standardised, and roles begin around one, so that a feature
is not drowned in random signs; graphs of one object come first, then of two, so that naming is learnt before attention
moves; the rate is higher, warms up and falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from imagexplain.models.captioners.captioner import Captioner, Dimensions
from imagexplain.models.captioners.region_encoder import RegionEncoder
from training.captioning.config import CaptionConfig
from training.captioning.drawn_scenes import draw
from training.captioning.items import CaptionItem
from training.captioning.random_graphs import random_graph
from training.captioning.scene_features import SceneFeatures, encode, load, save
from training.captioning.sources import scene_item, scene_vocabulary
from training.finetuning.labelled_images import digest
from training.finetuning.randomness import private_randomness, seed_all, seed_of

SEED = 0
"""Series of the scenes to train on."""

VALIDATION_SEED, VALIDATION = 1_000_033, 300
"""Series and number of the scenes by which the best epoch is chosen."""

HELD_OUT_SEED, HELD_OUT = 1_000_003, 1000
"""Series and number of the scenes to measure on."""

PER_SCENE = 2
"""Number of graphs of each of these."""

WIDTH, DROPOUT = 96, 0.1
CONFIG = CaptionConfig(
    epochs=72, batch=64, rate=3e-3, warmup_steps=300, falling=True, beta2=0.98, clip=1.0, bucket=20, seed=SEED
)
STAGES = (3, 16)
"""Epochs with graphs of at most one object, then of two."""


def new_captioner(features: int, width: int = WIDTH, dropout: float = DROPOUT, seed: int = SEED) -> Captioner:
    """A captioner of the grammar's words that is not trained yet.

    Args:
        features: Width of the region encoder's features.
        width: Width of all that lies within.
        dropout: Part of the language LSTM's output that training drops.
        seed: Seed of the weights.
    """
    with private_randomness():
        seed_all(seed, "captioner")
        model = Captioner(Dimensions(len(scene_vocabulary()), features, features, width), dropout)
        with torch.no_grad():
            model.attn_encoder.node_embedding.weight.mul_(0.1).add_(1)
    return model


def encoded_scenes(
    encoder: RegionEncoder, seed: int, count: int, processes: int = 1, cache: Path | None = None
) -> list[SceneFeatures]:
    """The scenes 0 … count − 1 of a series, encoded.

    Args:
        encoder: Region encoder, in ``eval()``.
        seed: Number of the series.
        count: Number of scenes.
        processes: Number of processes that draw.
        cache: Folder in which they are kept, and looked for first.
    """
    own = digest(encoder.state_dict().items())[:12]
    file = None if cache is None else cache / f"scenes_{seed}_{count}_{own}.pt"
    if file is not None and file.is_file():
        return load(file)
    scenes = [encode(encoder, scene) for scene in draw(seed, count, processes)]
    if file is not None:
        save(file, scenes)
    return scenes


def fixed_items(scenes: Sequence[SceneFeatures], seed: int, per_scene: int = 1) -> list[CaptionItem]:
    """Items of so many different random graphs of each scene, always the same; regions are their numbers."""
    return list(_fixed(scenes, seed, per_scene))


def _fixed(scenes: Sequence[SceneFeatures], seed: int, per_scene: int) -> Iterator[CaptionItem]:
    for place, scene in enumerate(scenes):
        rng = np.random.default_rng([seed_of("graphs", seed), place])
        phrases: set[str | None] = set()
        while len(phrases) < per_scene:
            graph = random_graph(rng, scene.scene)
            if graph.phrase not in phrases:
                yield scene_item(scene, graph, str(place), str(len(phrases)))
                phrases.add(graph.phrase)
