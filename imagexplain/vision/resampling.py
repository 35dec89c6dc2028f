"""Resize of a photo by the library that a model's preprocessing names, with the very numbers of that library."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagexplain.vision.preprocess_fields import Interpolation, Size
from imagexplain.vision.preprocess_settings import Preprocess

_PILLOW: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_TORCHVISION: dict[Interpolation, str] = {"nearest_exact": "nearest-exact"}


def resize(photo: Image.Image, size: Size, preprocess: Preprocess) -> Tensor:
    """Resize a photo to (height, width) pixels.

    Args:
        photo: Photo in the model's channels: ``L``, ``RGB`` or ``RGBA``.
        size: Height and width of the result.
        preprocess: Library, filter and antialiasing.

    Returns:
        Pixels (C, H, W), perhaps not contiguous: uint8, or float32 in 0..1 (which a bicubic filter oversteps) where
        the library resizes such values.
    """
    if preprocess.resampling == "pillow":
        return pixels_of(photo.resize(size[::-1], _PILLOW[preprocess.interpolation]))
    # torchvision takes seconds to import, and chooses torch's kernel by the processor.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    mode = InterpolationMode(_TORCHVISION.get(preprocess.interpolation, preprocess.interpolation))
    pixels = pixels_of(photo).contiguous()
    if preprocess.resampling == "torch_float":
        pixels = fractions(pixels, preprocess)
    resized: Tensor = functional.resize(pixels, list(size), mode, antialias=preprocess.antialias)
    return resized


def fractions(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Copy of pixels in 0..1, contiguous float32, to the last digit as the library that resizes has them."""
    if pixels.dtype != torch.uint8:
        return pixels.clone(memory_format=torch.contiguous_format)
    return divided(pixels.contiguous().to(torch.float32), preprocess)


def divided(values: Tensor, preprocess: Preprocess) -> Tensor:
    """Bring values in 0..255 to 0..1, in place: torchvision divides Pillow's pixels, and multiplies tensors."""
    return values.div_(255) if preprocess.resampling == "pillow" else values.mul_(1 / 255)


def pixels_of(photo: Image.Image) -> Tensor:
    """Pixels (C, H, W) of a photo, uint8; a view of rows of pixels."""
    pixels = torch.from_numpy(np.array(photo))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
