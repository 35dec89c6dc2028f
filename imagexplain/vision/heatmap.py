"""Heat map: an attribution drawn over its photo, red where it supports the class, blue where it opposes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from imagexplain.vision.geometry import Geometry

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PERCENTILE = 99.5
"""Percentile of a map's magnitudes at which full colour is reached: a few extreme pixels do not pale the rest."""

# The ends of ColorBrewer's RdBu, apart for every kind of colour blindness.
_SUPPORTS = np.array([202, 0, 32], dtype=np.float32)
_OPPOSES = np.array([5, 90, 190], dtype=np.float32)
_OPACITY = 0.85
_LEVELS = 127  # shades of each sign
_WHITE = 0.28  # the part of white in the faded photo
_UNSEEN_WHITE = 0.62  # the same outside the model's view
_HATCH = 38  # how much darker the hatching is there
_SAMPLE = 1_000_000
_STRIP = 256  # rows


@dataclass(frozen=True)
class HeatMap:
    """Map over the model's input as it is drawn.

    Attributes:
        values: Values (H, W), float32, finite; positive supports.
        sigma: Standard deviation of the Gaussian that smoothed them, in pixels of the input; 0 for none.
    """

    values: Tensor
    sigma: float = 0.0


def smoothed(attribution: Tensor, sigma: float = 0.0) -> HeatMap:
    """Sum an attribution over its channels, with sign, and smooth it by a Gaussian, which keeps the sum over the image.

    Args:
        attribution: Attribution (H, W), (C, H, W) or (1, C, H, W) over the model's input.
        sigma: Standard deviation in pixels of the input, at least 0.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: wanted a number of pixels, at least 0, got {sigma}")
    values = signed_map(attribution)
    if sigma > 0:
        values = torch.from_numpy(gaussian_filter(values.numpy(), sigma, mode="reflect"))
    return HeatMap(values, sigma)


def overlay(
    photo: Image.Image,
    attribution: Tensor,
    geometry: Geometry | None = None,
    percentile: float = PERCENTILE,
    sigma: float = 0.0,
) -> Image.Image:
    """Draw the heat map of an attribution over a photo.

    Channels are summed with their signs. Full colour is reached at the percentile of the drawn map's magnitude. A map
    of zeros leaves the faded photo.

    Args:
        photo: Upright RGB photo; not changed.
        attribution: Attribution (H, W), (C, H, W) or (1, C, H, W) over the model's input.
        geometry: Map from the photo to the model's input; by default the photo was stretched.
        percentile: Percentile, in (0, 100], of the magnitudes that are not zero, at which full colour is reached.
        sigma: Standard deviation of the Gaussian that smooths the map, in pixels of the input.

    Returns:
        An RGB image of the photo's size.
    """
    return painted(photo, smoothed(attribution, sigma), geometry, percentile)[0]


def painted(
    photo: Image.Image, heat: HeatMap, geometry: Geometry | None = None, percentile: float = PERCENTILE
) -> tuple[Image.Image, float]:
    """Paint a heat map over a photo; the magnitude of full colour comes with it, 0 for a map of zeros.

    See :func:`overlay`.
    """
    height, width = photo.height, photo.width
    if geometry is None:
        geometry = Geometry((height, width), (height, width), (0, 0, height, width))
    if geometry.photo != (height, width):
        raise ValueError(f"geometry: wanted one of a photo of {(height, width)}, got {geometry.photo}")
    drawn: Floats = geometry.to_photo(heat.values, kernel="bspline").numpy()
    scale = _scale(drawn, percentile)
    return Image.fromarray(veiled(photo, lambda rows: drawn[rows] / (scale or 1), geometry)), scale


def veiled(photo: Image.Image, strength: Callable[[slice], Floats], geometry: Geometry) -> Bytes:
    """Fade a photo to grey, (H, W, 3), under a veil of colour; hatch it outside the model's view.

    Args:
        photo: RGB photo.
        strength: Function from a slice of the rows to their strengths, clipped to [−1, 1].
        geometry: Map from the photo to the model's input.
    """
    width, height = photo.size
    seen_rows, seen_columns = seen(geometry)
    unseen_rows, unseen_columns = ~_within(seen_rows, height), ~_within(seen_columns, width)
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _STRIP):  # strip by strip: whole, a large photo's temporaries would take gigabytes
        rows = slice(top, min(top + _STRIP, height))
        grey = np.asarray(photo.crop((0, rows.start, width, rows.stop)).convert("L"))
        picture[rows] = veil(_faded()[grey], strength(rows))
        if (outside := unseen_rows[rows, None] | unseen_columns).any():
            picture[rows][outside] = _hatched(grey, rows.start, max(6, round(math.sqrt(width * height) / 30)))[outside]
    return picture


def veil(grey: Bytes, strength: Floats) -> Bytes:
    """Colour greys (H, W) to (H, W, 3): red above 0 and blue below, the more opaque the larger the magnitude."""
    shade = np.rint(strength.clip(-1, 1) * _LEVELS).astype(np.int32) + _LEVELS  # (H, W) in 0..254
    return _palette().take(shade * 256 + grey, axis=0)


def seen(geometry: Geometry) -> tuple[slice, slice]:
    """Rows and columns of the photo that the model sees."""
    top, left, height, width = geometry.box
    return (
        _range(geometry.photo[0], geometry.resized[0], top, height),
        _range(geometry.photo[1], geometry.resized[1], left, width),
    )


def signed_map(attribution: Tensor) -> Tensor:
    """Sum over channels (H, W), float32; entries that are not finite count as zero."""
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


def _range(photo: int, resized: int, start: int, length: int) -> slice:
    """Pixels of the photo along one side whose centres lie in the box."""
    first = max(0, math.ceil(start * photo / resized - 0.5))
    return slice(first, max(first, min(photo, math.ceil((start + length) * photo / resized - 0.5))))


def _within(part: slice, length: int) -> NDArray[np.bool_]:
    inside = np.zeros(length, dtype=np.bool_)
    inside[part] = True
    return inside


def _hatched(grey: Bytes, first_row: int, period: int) -> Bytes:
    """Pale grey (H, W, 3) with diagonal lines; rows are counted from the photo's first."""
    pale = np.rint(255 * _UNSEEN_WHITE + grey * (1 - _UNSEEN_WHITE)).astype(np.int16)
    diagonal = (np.arange(first_row, first_row + grey.shape[0])[:, None] + np.arange(grey.shape[1])) % period
    pale -= _HATCH * (diagonal < max(1, period // 10)).astype(np.int16)
    return np.repeat(pale.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@cache
def _faded() -> Bytes:
    """Grey that each grey of the photo is lightened to, (256,)."""
    return np.rint(255 * _WHITE + np.arange(256) * (1 - _WHITE)).astype(np.uint8)


@cache
def _palette() -> Bytes:
    """Colour of each strength over each grey, (255 · 256, 3)."""
    strength = np.linspace(-1, 1, 2 * _LEVELS + 1, dtype=np.float32)[:, None, None]
    grey = np.arange(256, dtype=np.float32)[None, :, None]
    colour = np.where(strength > 0, _SUPPORTS, _OPPOSES)
    return np.rint(grey + _OPACITY * np.abs(strength) * (colour - grey)).astype(np.uint8).reshape(-1, 3)
