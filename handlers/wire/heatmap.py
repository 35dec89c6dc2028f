"""An attribution drawn over its photo: red speaks for the class, blue against it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from handlers.wire.geometry import Geometry

Floats = NDArray[np.float32]

_FOR = np.array([202, 0, 32], dtype=np.float32)
_AGAINST = np.array([5, 90, 190], dtype=np.float32)
_SAMPLE = 1_000_000
_STRIP = 256  # rows


def overlay(
    photo: Image.Image, attribution: Tensor, geometry: Geometry | None = None, percentile: float = 99.5
) -> Image.Image:
    """The heat map of an attribution over a photo.

    Channels are summed with their signs. Full colour is reached at the percentile of the drawn map's magnitude, so that
    a few extreme pixels do not pale the rest. A map of zeros leaves the faded photo.

    Args:
        photo: Upright RGB photo; not changed.
        attribution: (H, W), (C, H, W) or (1, C, H, W), over the model's input.
        geometry: How the photo became the model's input; by default it was stretched.
        percentile: In (0, 100], of the magnitudes that are not zero.

    Returns:
        An RGB image of the photo's size.
    """
    height, width = photo.height, photo.width
    values = signed_map(attribution)
    if geometry is None:
        geometry = Geometry((height, width), (height, width), (0, 0, height, width))
    if geometry.photo != (height, width):
        raise ValueError(f"geometry: wanted one of a photo of {(height, width)}, got {geometry.photo}")
    drawn: Floats = geometry.to_photo(values, kernel="bspline").numpy()
    scale = _scale(drawn, percentile)
    return Image.fromarray(veiled(photo, lambda rows: np.clip(drawn[rows] / (scale or 1), -1, 1)))


def veiled(photo: Image.Image, strength: Callable[[slice], Floats]) -> NDArray[np.uint8]:
    """The faded photo, (H, W, 3), under a veil of colour.

    Args:
        photo: RGB.
        strength: gives the strengths, in [−1, 1], of a slice of the rows.
    """
    width, height = photo.size
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _STRIP):  # strip by strip: in float32 a large photo would take gigabytes
        rows = slice(top, min(top + _STRIP, height))
        picture[rows] = blend(_fade(photo.crop((0, rows.start, width, rows.stop))), strength(rows))
    return picture


def signed_map(attribution: Tensor) -> Tensor:
    """The (H, W) float32 sum over channels; entries that are not finite count as zero."""
    values = attribution.detach().to("cpu", torch.float32)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        values = values.nan_to_num(0, 0, 0).sum(dim=0)
    if values.ndim != 2:
        raise ValueError(f"attribution: wanted (H, W), (C, H, W) or (1, C, H, W), got {tuple(attribution.shape)}")
    return values.nan_to_num(0, 0, 0)


def _scale(drawn: Floats, percentile: float) -> float:
    stride = max(1, math.isqrt(drawn.size // _SAMPLE))  # a large photo's percentile is the same on every k-th pixel
    magnitude = np.abs(drawn[::stride, ::stride])
    magnitude = magnitude[magnitude > 0]
    return float(np.percentile(magnitude, percentile)) if magnitude.size else 0.0


def _fade(photo: Image.Image) -> Floats:
    """The photo with most of its colour gone and lightened, (H, W, 3) in 0..255."""
    grey = ImageEnhance.Color(photo).enhance(0.25)
    return np.asarray(Image.blend(grey, Image.new("RGB", photo.size, "white"), 0.28), dtype=np.float32)


def blend(base: Floats, strength: Floats) -> NDArray[np.uint8]:
    """``base`` under a veil of colour whose opacity grows with the magnitude of ``strength`` (H, W) in [−1, 1]."""
    opacity = 0.85 * np.abs(strength)[..., None]
    colour = np.where(strength[..., None] > 0, _FOR, _AGAINST)
    return np.rint(base + opacity * (colour - base)).astype(np.uint8)
