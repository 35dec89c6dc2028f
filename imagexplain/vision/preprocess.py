"""A photo brought into a model's frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from imagexplain.vision.decode import Photo
from imagexplain.vision.geometry import Geometry, Preprocess, apply


@dataclass(frozen=True)
class ModelInput:
    """A photo as a model sees it.

    Attributes:
        image: (3, H, W) model input, on the CPU.
        geometry: The map from the photo to it.
        preprocess: What made it so; its size is the image's.
    """

    image: Tensor
    geometry: Geometry
    preprocess: Preprocess


def view(photo: Photo, preprocess: Preprocess) -> ModelInput:
    """A photo as a model with inputs of a fixed size sees it; raises like :func:`imagexplain.vision.geometry.apply`."""
    return ModelInput(*apply(photo.image, preprocess), preprocess)
