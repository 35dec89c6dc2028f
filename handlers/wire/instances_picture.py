"""Instances drawn over their photo: each mask in a colour of its own, with its outline, label and score."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from handlers.models.detections import Detections

OPACITY = 0.45
GOLDEN = 0.618034  # neighbours in rank get hues far apart


def drawn(photo: Image.Image, found: Detections, labels: Sequence[str]) -> Image.Image:
    """An RGB image of the photo's size.

    Args:
        photo: upright RGB photo; not changed.
        found: instances over it.
        labels: names of the classes.
    """
    pixels = np.array(photo)
    colours = [colour(rank) for rank in range(len(found))]
    order = sorted(range(len(found)), key=lambda rank: -found.cut_outs[rank].area)
    for rank in order:  # the smallest is painted last
        cut_out = found.cut_outs[rank]
        part = pixels[cut_out.window]  # a view
        part[cut_out.mask] = np.rint(part[cut_out.mask] * (1 - OPACITY) + colours[rank] * OPACITY).astype(np.uint8)
        part[outline(cut_out.mask)] = colours[rank]
    image = Image.fromarray(pixels)
    size = min(max(min(image.size) // 26, 11), 40)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image, "RGBA")
    for rank in order:
        text = f"{labels[int(found.labels[rank])]} {found.scores[rank]:.2f}"
        x0, y0 = found.boxes[rank, :2].tolist()
        width = draw.textlength(text, font)
        left, top = max(0, min(x0, image.width - width - 4)), max(0, min(y0, image.height - size - 4))
        draw.rectangle((left, top, left + width + 4, top + size + 4), fill=(*map(int, colours[rank]), 220))
        draw.text((left + 2, top + 1), text, fill=(255, 255, 255), font=font)
    return image


def colour(rank: int) -> NDArray[np.float64]:
    """(3,) RGB in 0..255 of the instance of that rank; dark enough for white letters."""
    return np.array(colorsys.hsv_to_rgb((0.02 + rank * GOLDEN) % 1, 0.85, 0.75)) * 255


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) the pixels of a mask that have a neighbour outside it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
