"""Segments drawn over their photo, each in the colour of its sign and strength, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from handlers.wire.geometry import Geometry
from handlers.wire.heatmap import blend, veiled

ROWS = 6
"""Most rows of a legend."""
LONGEST = 24  # characters of a label
_OUTLINE = np.array([250, 250, 250], dtype=np.uint8)


@dataclass(frozen=True)
class Entry:
    """A row of the legend.

    Attributes:
        text: what it says.
        strength: in [−1, 1], the colour of its swatch.
    """

    text: str
    strength: float


def smallest(masks: Tensor) -> Tensor:
    """(H, W) int64: for each pixel the smallest group of masks (G, H, W) that it lies in, −1 where it lies in none."""
    order = masks.flatten(1).sum(1).argsort(descending=True, stable=True)
    labels = torch.full(masks.shape[1:], -1, dtype=torch.int64)
    for index in order.tolist():  # the smallest is painted last
        labels[masks[index]] = index
    return labels


def coloured(
    photo: Image.Image, masks: Tensor, strengths: Tensor, geometry: Geometry, legend: Sequence[Entry] = ()
) -> Image.Image:
    """The photo under a veil of colour per segment, red for and blue against; a pixel takes that of its smallest one.

    Args:
        photo: upright RGB photo; not changed.
        masks: (G, H, W) bool over the model's input.
        strengths: (G,) in [−1, 1].
        geometry: how the photo became the model's input; what it cut off stays without colour.
        legend: its rows, the most important first; as many as the photo has room for are drawn, none on a small one.

    Returns:
        An RGB image of the photo's size.
    """
    # (photo height, photo width), −1 outside every segment
    labels = geometry.labels_to_photo(smallest(masks.cpu()), outside=-1).numpy()
    colours = np.append(np.nan_to_num(strengths.double().cpu().numpy()).clip(-1, 1), 0).astype(np.float32)
    picture = veiled(photo, lambda rows: colours[labels[rows]])
    picture[_outline(labels)] = _OUTLINE
    image = Image.fromarray(picture)
    _draw_legend(image, legend)
    return image


def _outline(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(H, W) the pixels above or left of another segment."""
    edge = np.zeros(labels.shape, dtype=np.bool_)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edge


def _draw_legend(image: Image.Image, legend: Sequence[Entry]) -> None:
    size = min(max(min(image.size) // 26, 11), 40)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image, "RGBA")
    rows = [entry.text for entry in legend[:ROWS]]
    step, margin = round(1.4 * size), size // 2
    width = round(max((draw.textlength(text, font) for text in rows), default=0)) + step + 3 * margin
    fitting = min(len(rows), (image.height // 2 - 2 * margin) // step)
    if fitting < 1 or width + 2 * margin > image.width:
        return
    height = fitting * step + margin
    left, top = margin, image.height - margin - height
    draw.rectangle((left, top, left + width, top + height), fill=(255, 255, 255, 215))
    for row, entry in enumerate(legend[:fitting]):
        y = top + margin // 2 + row * step
        plain = np.full((1, 1, 3), 235, dtype=np.float32)
        red, green, blue = blend(plain, np.full((1, 1), entry.strength, dtype=np.float32))[0, 0].tolist()
        swatch = (left + margin, y + size // 6, left + margin + size, y + size // 6 + size)
        draw.rectangle(swatch, fill=(red, green, blue), outline=(90, 90, 90))
        draw.text((left + margin + step, y), entry.text, fill=(20, 20, 20), font=font)


def shortened(label: str) -> str:
    """A label that fits the legend."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
