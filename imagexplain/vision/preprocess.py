"""Photos brought into a model's frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from imagexplain.vision.decode import Photo
from imagexplain.vision.geometry import Geometry, Preprocess, apply


@dataclass(frozen=True)
class ModelInput:
    """Photo as a model sees it.

    Attributes:
        image: Input (3, H, W) of the model, on the CPU.
        geometry: Map from the photo to it.
        preprocess: Preprocessing that made it so; its size is the image's.
    """

    image: Tensor
    geometry: Geometry
    preprocess: Preprocess


def preprocess(photo: Photo, settings: Preprocess) -> ModelInput:
    """Preprocess a photo for a model with inputs of a fixed size.

    Raises like :func:`imagexplain.vision.geometry.apply`.
    """
    return ModelInput(*apply(photo.image, settings), settings)
