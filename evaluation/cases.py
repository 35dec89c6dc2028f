"""Held-out scenes with their truth, as inputs of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from evaluation.partition import Partition, by_objects, by_superpixels
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.superpixels import SlicSettings
from training.scenes import SceneSettings, scene

SCENES: Mapping[str, SceneSettings] = {
    "standard": SceneSettings(),
    # Distractors larger than the deciding object: its area gives it away no longer. No model was trained on these.
    "crowded": SceneSettings(extent=(0.5, 0.6), distractor_extent=(0.7, 0.9)),
}

# Chosen by the number of pieces alone: nine scenes in ten have 19 to 26. At a compactness of 10, they have 4 to 23.
SUPERPIXELS = SlicSettings(n_segments=25, compactness=30.0)


@dataclass(frozen=True, eq=False)
class Case:
    """One scene and its truth.

    Attributes:
        index: Index of the scene within its series.
        photo: (3, H, W) float32 RGB of 0 … 1.
        image: (3, H, W) float32 model input.
        label: Class that the deciding object makes true.
        deciding: (H, W) bool, its visible pixels.
        partitions: Partitions by name, ``objects`` and ``superpixels``.
    """

    index: int
    photo: Tensor
    image: Tensor
    label: int
    deciding: Tensor
    partitions: Mapping[str, Partition]

    def generator(self, purpose: int) -> torch.Generator:
        """Random numbers that depend on the scene and on what they are for, not on what was drawn before."""
        return torch.Generator().manual_seed(1000 * self.index + purpose)


def case(seed: int, index: int, settings: SceneSettings, preprocess: Preprocess) -> Case:
    """The scene of that series and number for a model with that preprocessing.

    Raises:
        ValueError: a model whose frame is not the scene's, so that the truth would have to be resampled.
    """
    if preprocess.size != settings.size:
        raise ValueError(f"size: wanted the model's {preprocess.size}, got {settings.size}")
    drawn = scene(seed, index, settings)
    deciding = torch.from_numpy(drawn.deciding.mask)
    image, _ = apply(Image.fromarray(drawn.image), preprocess)
    photo = torch.from_numpy(drawn.image).permute(2, 0, 1).float() / 255
    partitions = {"objects": by_objects(drawn), "superpixels": by_superpixels(photo, deciding, SUPERPIXELS)}
    return Case(index, photo, image, drawn.label, deciding, partitions)
