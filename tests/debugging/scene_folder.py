"""Folders of scenes, some of them under another class, so that a model that knows them is wrong there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from training.scenes import CLASSES, SceneSettings, scene

SIZE = 64


def write_scenes(folder: Path, count: int, *, misplaced: int = 2, masks: Path | None = None, seed: int = 77) -> None:
    """Scenes by class, each `misplaced`-th of them in the next class's folder, and label maps of their objects."""
    for index in range(count):
        drawn = scene(seed, index, SceneSettings(size=(SIZE, SIZE)))
        shift = index % misplaced == 0
        name = f"{CLASSES[(drawn.label + shift) % len(CLASSES)]}/{index:03d}.png"
        write_png(folder / name, drawn.image)
        if masks is not None:
            values = np.zeros((SIZE, SIZE), dtype=np.uint8)
            for instance in drawn.instances:
                values[instance.mask] = 1 if instance.deciding else 2
            write_png(masks / name, values)
    if masks is not None:
        (masks / "labels.json").write_text(json.dumps({"1": "shape", "2": "distractor"}))


def write_png(file: Path, pixels: np.ndarray) -> None:
    """An image as a file, with the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
