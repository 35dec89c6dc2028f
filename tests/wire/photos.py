"""Small encoded photos, made on the spot, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from imagexplain.errors import RequestError

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
"""A photo of 2 rows, 3 columns, in which no two values are equal."""


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(height: int = 2, width: int = 3) -> bytes:
    return encoded(Image.new("RGB", (width, height), (10, 20, 30)))


def jpeg(height: int = 48, width: int = 64) -> bytes:
    ramp = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) % 251
    return encoded(Image.fromarray(ramp.astype(np.uint8)), "JPEG", quality=95)


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> RequestError | None:
    """The error with which ``call`` refuses its arguments, if it does."""
    try:
        call(*arguments, **options)
    except RequestError as error:
        return error
    return None
