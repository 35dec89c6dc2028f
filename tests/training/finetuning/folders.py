"""Labelled folders of small photos, told apart by their brightness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dark", "light", "middle")
LEVELS = (40, 215, 128)


def labelled_folder(root: Path, counts: Sequence[int], size: int = 36, seed: int = 0) -> Path:
    """A folder with so many photos of each class; returns it."""
    generator = np.random.default_rng(seed)
    for name, level, count in zip(CLASSES, LEVELS, counts, strict=True):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = level + generator.integers(-40, 41, (size, size, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def photos(root: Path, train: int = 8, val: int = 3) -> Path:
    """A folder with ``train`` and ``val``; returns it."""
    labelled_folder(root / "train", [train] * len(CLASSES))
    labelled_folder(root / "val", [val] * len(CLASSES), seed=1)
    return root
