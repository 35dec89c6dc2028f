"""Small encoded photos, made on the spot, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagexplain.errors import RequestError

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
"""A photo of 2 rows, 3 columns, in which no two values are equal."""


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """A file of an image."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise_pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random pixels (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """An image of random pixels."""
    return Image.fromarray(noise_pixels(height, width, seed))


def png(height: int = 2, width: int = 3) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", (width, height), (10, 20, 30)))


def jpeg(height: int = 48, width: int = 64) -> bytes:
    """A JPEG of a ramp."""
    ramp = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) % 251
    return encoded(Image.fromarray(ramp.astype(np.uint8)), "JPEG", quality=95)


def label_map(values: np.ndarray, mode: str = "L") -> bytes:
    """A PNG of a label for each pixel, of one of Pillow's modes."""
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8), "L").convert("P")
        image.putdata(values.flatten().tolist())
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    elif mode == "1":
        image = Image.fromarray(values.astype(bool))
    else:
        image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    return encoded(image)


def png_of(width: int, height: int, depth: int, colour: int, data: bytes, **chunks: bytes) -> bytes:
    """A PNG of packed rows, each behind its filter's byte, and of the chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    before = [(name.encode(), content) for name, content in chunks.items()]
    parts = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header promises width × height pixels."""
    return png_of(width, height, 8, 2, bytes(10))


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> RequestError | None:
    """The error with which ``call`` refuses its arguments, if it does."""
    try:
        call(*arguments, **options)
    except RequestError as error:
        return error
    return None
