"""Features of named scenes: all that a captioner may look at, encoded once, without the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagexplain.models.captioners.region_encoder import RegionEncoder, corners_of
from imagexplain.vision.scene_graph import Box, Node
from training.captioning.named_scenes import NamedObject, NamedScene
from training.finetuning.whole_files import replace

_NO_IMAGE = np.zeros((0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class SceneFeatures:
    """A scene of K objects as a captioner sees it.

    Attributes:
        objects: Objects.
        boxes: Features (K, K, D) of the boxes around two objects, of one on the diagonal.
        image: Feature (D,) of the whole image.
    """

    objects: tuple[NamedObject, ...]
    boxes: Tensor
    image: Tensor

    @property
    def scene(self) -> NamedScene:
        """The scene, without its pixels: graphs and captions need none."""
        return NamedScene(_NO_IMAGE, self.objects)

    def nodes(self, nodes: Iterable[Node]) -> Tensor:
        """Features (N, D) of a graph's nodes, whose identifiers are places in the scene."""
        ends = [(int(node.objects[0]), int(node.objects[-1])) for node in nodes]
        return self.boxes[[first for first, _ in ends], [last for _, last in ends]]


@torch.no_grad()
def encode(encoder: RegionEncoder, scene: NamedScene) -> SceneFeatures:
    """Encode a scene by a region encoder in ``eval()``."""
    photo = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    own = [one.box for one in scene.objects]
    pairs = list(combinations_with_replacement(range(len(own)), 2))
    height, width = scene.image.shape[:2]
    boxes = [own[first].union(own[last]) for first, last in pairs]
    features = encoder(photo, corners_of([*boxes, Box(0, 0, width, height)]))
    table = features.new_zeros(len(own), len(own), features.shape[1])
    for (first, last), feature in zip(pairs, features, strict=False):
        table[first, last] = table[last, first] = feature
    return SceneFeatures(scene.objects, table, features[-1])


def save(file: Path, scenes: Iterable[SceneFeatures]) -> None:
    """Write encoded scenes to a file, whole."""
    content = [
        {
            "objects": [[one.shape, one.colour, one.texture, one.size, *_sides(one)] for one in each.objects],
            "boxes": each.boxes,
            "image": each.image,
        }
        for each in scenes
    ]
    replace(file, lambda partial: torch.save(content, partial))


def load(file: Path) -> list[SceneFeatures]:
    """Read encoded scenes."""
    content = torch.load(file, map_location="cpu", weights_only=True)
    return [SceneFeatures(tuple(map(_named, each["objects"])), each["boxes"], each["image"]) for each in content]


def _named(values: Sequence[Any]) -> NamedObject:
    shape, colour, texture, size, *sides = values
    return NamedObject(shape, colour, texture, size, Box(*sides))


def _sides(one: NamedObject) -> tuple[float, float, float, float]:
    return one.box.x, one.box.y, one.box.width, one.box.height
