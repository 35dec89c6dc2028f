"""Items to train on, epoch by epoch: those of a split, or new graphs of scenes in the order of their difficulty."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.graph_tensors import lay_out
from imagexplain.models.captioners.vocabulary import SIGNS
from imagexplain.vision.scene_graph import SceneGraph
from training.captioning.grammar import WORDINGS, captions_of
from training.captioning.items import CaptionItem
from training.captioning.names import COLOURS, SHAPES, TEXTURES
from training.captioning.random_graphs import MOST_OBJECTS, random_graph
from training.captioning.scene_features import SceneFeatures
from training.captioning.vocabulary import Vocabulary


class Items(Protocol):
    """Items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> CaptionItem: ...


class Source(Protocol):
    """Items for each epoch, as many in each, and the same whenever they are asked for."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Items:
        """Items of an epoch, from 0."""

    def fingerprint(self) -> str:
        """Digest of all that decides the items."""


@dataclass(frozen=True)
class SameItems:
    """The same items in every epoch.

    Attributes:
        items: Items.
    """

    items: Items

    def __len__(self) -> int:
        return len(self.items)

    def epoch(self, number: int) -> Items:
        """Return the items."""
        return self.items

    def fingerprint(self) -> str:
        """Digest of keys, captions and features."""
        found = hashlib.sha256()
        for number in range(len(self.items)):
            item = self.items[number]
            found.update(f"{item.key} {item.caption} {item.references}".encode())
            for features in (item.nodes, item.image):
                found.update(features.contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class SceneGraphs:
    """Random graphs of scenes, others in every epoch; in the first ones of few objects.

    Attributes:
        scenes: Scenes.
        per_scene: Number of graphs of each scene in an epoch.
        stages: Number of epochs in which graphs have at most one object, two, three, and so on; after the last, at most
            four.
        seed: Seed of the graphs.
    """

    scenes: Sequence[SceneFeatures]
    per_scene: int = 1
    stages: tuple[int, ...] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.scenes) * self.per_scene

    def epoch(self, number: int) -> Sequence[CaptionItem]:
        """Draw the graphs of an epoch."""
        most = next((most for most, end in enumerate(accumulate(self.stages), 1) if number < end), MOST_OBJECTS)
        return [
            self._item(scene, place, copy, np.random.default_rng([self.seed, number, place, copy, 7]), most)
            for place, scene in enumerate(self.scenes)
            for copy in range(self.per_scene)
        ]

    def fingerprint(self) -> str:
        """Digest of scenes, features and settings."""
        found = hashlib.sha256(f"{self.per_scene} {self.stages} {self.seed}".encode())
        for scene in self.scenes:
            found.update(repr(scene.objects).encode())
            found.update(scene.boxes.contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _item(
        self, scene: SceneFeatures, place: int, copy: int, rng: np.random.Generator, most_objects: int
    ) -> CaptionItem:
        return scene_item(scene, random_graph(rng, scene.scene, most_objects), str(place), str(copy))


def scene_item(scene: SceneFeatures, graph: SceneGraph, image: str, region: str) -> CaptionItem:
    """The item of a graph of a scene: its caption is the first wording's, all are references.

    Args:
        scene: Scene.
        graph: Graph that the grammar has a caption for.
        image: Name of the image.
        region: Name of the region.

    Raises:
        ArgumentError: it has none.
    """
    captions, layout = captions_of(scene.scene, graph), lay_out(graph)
    return CaptionItem(image, region, graph, layout, scene.nodes(layout.nodes), scene.image, captions[0], captions)


def scene_vocabulary() -> Vocabulary:
    """The vocabulary of the grammar: every word of every wording."""
    words = [*SHAPES, *COLOURS, *TEXTURES, "a", "an", "the", "and"]
    for wording in WORDINGS:
        words += [*wording.opening, *wording.sizes.values()]
        words += [word for phrase in wording.relations.values() for word in phrase.split()]
    return Vocabulary((*SIGNS, *dict.fromkeys(words)))


def check_vocabulary(vocabulary: Vocabulary, words: int) -> None:
    """Check that a captioner has as many words.

    Raises:
        ArgumentError: it has others.
    """
    if len(vocabulary) != words:
        raise ArgumentError("vocabulary", f"wanted the captioner's {words} words, got {len(vocabulary)}")
