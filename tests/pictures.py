"""What tests read from the pictures that the service draws."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image


def panel(body: bytes) -> Image.Image:
    """The photo's panel out of a PNG, each pixel of an enlarged photo once: an image of the photo's size."""
    picture = Image.open(io.BytesIO(body))
    told = json.loads(picture.info["Panel"])
    left, top, width, height = (told[name] for name in ("left", "top", "width", "height"))
    assert left + width <= picture.width and top + height <= picture.height
    factor = told["magnification"]
    assert (width, height) == tuple(side * factor for side in told["photo"])
    pixels = np.asarray(picture.convert("RGB"))[top : top + height, left : left + width]
    return Image.fromarray(np.ascontiguousarray(pixels[factor // 2 :: factor, factor // 2 :: factor]))


def words(body: bytes) -> str:
    """Title and lines of a PNG, as its own text has them."""
    told = Image.open(io.BytesIO(body)).info
    return f"{told['Title']}\n{told['Description']}"
