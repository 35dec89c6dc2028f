"""Photos brought into a model's frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from imagexplain.vision.decode import Photo
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.padding import padded, repadded
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.resampling import resize


@dataclass(frozen=True)
class ModelInput:
    """Photo as a model sees it.

    Attributes:
        image: Input (C, H, W) of the model, on the CPU.
        geometry: Map from the photo to it.
        preprocess: Preprocessing that made it so; its size is the image's, its mean and std are those that the photo
            was normalised by.
    """

    image: Tensor
    geometry: Geometry
    preprocess: Preprocess

    def of_photo(self, image: Tensor) -> Tensor:
        """Part (..., h, w) of a map or an input (..., H, W) that shows the photo: all of it but the padding."""
        rows, columns = self.geometry.inside
        return image[..., rows, columns]

    def with_photo(self, part: Tensor) -> Tensor:
        """Model input (..., C, H, W) of another photo of the same size, padded as this one is.

        Args:
            part: Part (..., C, h, w) of it that shows the photo, see :meth:`of_photo`.
        """
        return repadded(part, self.image, self.geometry.inside, self.preprocess) if self.geometry.padded else part

    def over_padding(self, masks: Tensor) -> Tensor:
        """Masks (S, H, W), bool, over the input, of masks (S, h, w) over its part that shows the photo."""
        if not self.geometry.padded:
            return masks
        whole = torch.zeros(len(masks), *self.image.shape[1:], dtype=torch.bool)
        self.of_photo(whole).copy_(masks)
        return whole


def preprocess(photo: Photo, settings: Preprocess) -> ModelInput:
    """Preprocess a photo for a model with inputs of a fixed size.

    Raises like :func:`apply`.
    """
    transparent = photo.transparent if settings.channels == "rgba" else None
    return see(photo.image if transparent is None else transparent, settings)


def apply(photo: Image.Image, preprocess: Preprocess) -> tuple[Tensor, Geometry]:
    """Apply a model's preprocessing to an upright photo.

    ``stretch`` gives the same numbers as torchvision's Resize((H, W)), ToTensor, Normalize; ``crop`` on a square size
    the same as Resize(⌊H / crop_fraction⌋), CenterCrop(H), ToTensor, Normalize.

    Args:
        photo: RGB photo, or RGBA where the model's input has alpha.
        preprocess: Preprocessing of the model.

    Returns:
        The input, (C, H, W) float32, and the geometry that led to it.

    Raises:
        RequestError: 422 where a crop would leave next to nothing of a very long photo.
    """
    seen = see(photo, preprocess)
    return seen.image, seen.geometry


def see(photo: Image.Image, preprocess: Preprocess) -> ModelInput:
    """Preprocess an upright photo as :func:`apply` does, and keep what it was normalised by."""
    geometry = fit(photo.size[::-1], preprocess)
    resized = resize(_in_channels(photo, preprocess), geometry.resized, preprocess)
    if preprocess.channels == "bgr":
        resized = resized.flip(0)
    values = padded(resized, geometry.box, preprocess)
    if preprocess.scale != 1:
        values.mul_(preprocess.scale)
    own = preprocess.of_values(values)
    return ModelInput(own.normalize(values), geometry, own)


def _in_channels(photo: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Photo of the mode that the model's channels are resized in."""
    if photo.mode != "RGB" and not (photo.mode == "RGBA" and preprocess.channels == "rgba"):
        wanted = "an RGB or RGBA image" if preprocess.channels == "rgba" else "an RGB image"
        raise ValueError(f"photo: wanted {wanted}, got mode {photo.mode}")
    mode = {"grey": "L", "rgba": "RGBA"}.get(preprocess.channels, "RGB")
    return photo if photo.mode == mode else photo.convert(mode)
