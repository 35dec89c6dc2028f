"""Pictures of attributions as Vertex Explainable AI has them: clipped by percentiles, in a colour map, over a photo.

The settings are those of ``ExplanationMetadata.InputMetadata.Visualization`` of ``google.cloud.aiplatform.v1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from imagexplain.vision.geometry import Geometry

Style = Literal["pixels", "outlines"]
Polarity = Literal["positive", "negative", "both"]
ColourMap = Literal["pink_green", "viridis", "red", "green", "pink_white_green", "red_green"]
Overlay = Literal["none", "original", "greyscale", "mask_black"]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

CLIP = (62.0, 99.9)
"""Percentiles between which magnitudes are shown, unless others are asked for."""

_GREEN, _PINK, _RED = (0, 200, 0), (255, 0, 200), (230, 0, 0)
_SIGNS = {
    "pink_green": (_PINK, _GREEN),
    "red": (_RED, _RED),
    "green": (_GREEN, _GREEN),
    "red_green": (_RED, _GREEN),
}
"""Colours of negative and of positive values."""

_PIYG = ((142, 1, 82), (222, 119, 174), (247, 247, 247), (127, 188, 65), (39, 100, 25))
"""ColorBrewer's PiYG, at −1, −0.5, 0, 0.5 and 1."""

_VIRIDIS = (
    *((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137)),
    *((53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37)),
)
"""Ten equally spaced colours of viridis, from blue to yellow."""

FAINTEST = 0.25
"""Strength of a value at the lower percentile; at the upper one it is 1."""

SMALLEST_OUTLINED = 1 / 400
"""Share of the photo's area below which a region gets no outline, nor is a hole in one left open."""


@dataclass(frozen=True)
class AttributionPicture:
    """Look of a picture.

    Attributes:
        style: Values of ``pixels``, or ``outlines`` of the regions that hold them.
        polarity: Sign that is shown.
        colours: Colours of the values.
        overlay: Ground on which they lie: black, the photo, the photo in grey, or the photo where there is a value.
        clip: Percentiles of the shown magnitudes below which nothing is drawn, and from which colours are full.
    """

    style: Style = "outlines"
    polarity: Polarity = "positive"
    colours: ColourMap = "pink_green"
    overlay: Overlay = "none"
    clip: tuple[float, float] = CLIP

    def draw(self, photo: Image.Image, attribution: Tensor, geometry: Geometry) -> Image.Image:
        """Draw an attribution.

        Args:
            photo: Upright RGB photo.
            attribution: Attribution (C, H, W) over the model's input, whose channels are summed.
            geometry: Map from the photo to the model's input.

        Returns:
            An RGB image of the photo's size.
        """
        values = attribution.detach().float().nan_to_num(0, 0, 0).sum(0)
        strengths = self._strengths(geometry.to_photo(values, kernel="bspline").numpy())  # (h, w) in −1..1
        strengths *= geometry.to_photo(values * 0 + 1).numpy() > 0  # nothing beyond the model's view
        if self.style == "outlines":  # of each sign by itself
            above, below = _tidied(strengths > 0), _tidied(strengths < 0)
            width = max(1, round(min(photo.size) / 150))
            strengths = np.where(_edges(above, width), 1, np.where(_edges(below, width), -1, 0)).astype(np.float32)
            regions = above | below
        else:
            regions = strengths != 0
        ground = self._ground(photo)
        if self.overlay == "mask_black":
            shown = np.where(regions, 1.0, 0.0) if self.style == "outlines" else np.abs(strengths)
            return Image.fromarray(np.rint(ground * shown[..., None]).astype(np.uint8))
        colours = self._colours(strengths)
        opacity = np.where(strengths != 0, 1.0, 0.0) if self.style == "outlines" else np.abs(strengths)
        if self.colours in ("viridis", "pink_white_green"):  # whose strength is the colour itself
            opacity = np.where(strengths != 0, 1.0 if self.overlay == "none" else 0.8, 0.0)
        mixed = ground * (1 - opacity[..., None]) + colours * opacity[..., None]
        return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))

    def _strengths(self, values: Floats) -> Floats:
        """Strength (h, w) of each value, −1 to 1: 0 below the lower percentile, from there on faint to full."""
        if self.polarity == "positive":
            values = values.clip(0, None)
        elif self.polarity == "negative":
            values = values.clip(None, 0)
        magnitudes = np.abs(values)
        low, high = np.percentile(magnitudes, self.clip)
        if high <= 0:
            return np.zeros_like(values)
        spread = max(high - low, np.finfo(np.float32).tiny)
        scaled = FAINTEST + (1 - FAINTEST) * (magnitudes.clip(low, high) - low) / spread
        return np.where((magnitudes >= low) & (magnitudes > 0), scaled * np.sign(values), 0).astype(np.float32)

    def _ground(self, photo: Image.Image) -> Floats:
        if self.overlay == "none":
            return np.zeros((photo.height, photo.width, 3), dtype=np.float32)
        return np.asarray(photo.convert("L").convert("RGB") if self.overlay == "greyscale" else photo, dtype=np.float32)

    def _colours(self, strengths: Floats) -> Floats:
        """Colours (h, w, 3), float32, of strengths."""
        if self.colours == "viridis":
            # Of one sign, magnitudes run from blue to yellow; of both, negative ones to blue.
            both = self.polarity == "both"
            places = (strengths + 1) / 2 if both else np.abs(strengths)
            return _between(_VIRIDIS, places)
        if self.colours == "pink_white_green":
            return _between(_PIYG, (strengths + 1) / 2)
        below, above = np.array(_SIGNS[self.colours], dtype=np.float32)
        return np.where((strengths < 0)[..., None], below, above)


def _between(colours: Sequence[tuple[int, int, int]], places: NDArray[np.floating[Any]]) -> Floats:
    """Colours (h, w, 3) at places from 0 to 1 among equally spaced ones."""
    at = np.linspace(0, 1, len(colours))
    table = np.array(colours, dtype=np.float32)
    return np.stack([np.interp(places, at, table[:, channel]) for channel in range(3)], -1).astype(np.float32)


def _tidied(regions: Bools) -> Bools:
    """Regions without specks and small holes."""
    from scipy.ndimage import binary_closing, binary_opening
    from skimage.morphology import remove_small_holes, remove_small_objects

    size = max(3, round(min(regions.shape) / 40))
    square = np.ones((size, size), dtype=bool)
    smooth = binary_opening(binary_closing(regions, square), square)
    least = max(4, round(regions.size * SMALLEST_OUTLINED))
    tidied = remove_small_objects(remove_small_holes(smooth, max_size=least), max_size=least)
    return tidied if tidied.any() else regions


def _edges(regions: Bools, width: int) -> Bools:
    from scipy.ndimage import binary_erosion

    return regions & ~binary_erosion(regions, iterations=width, border_value=0)
