"""Photos and other files of a request: from a path, bytes, an image of Pillow's or an array, to the bytes to send."""

from __future__ import annotations

import io
import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from imagexplain.client.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Photo: TypeAlias = Union[str, os.PathLike[str], bytes, "Image", NDArray[np.uint8]]
"""A photo: the path of its file, the file's bytes, an image of Pillow's, or an array (H, W), (H, W, 3) or (H, W, 4) of
uint8 in sRGB."""

ANY = "application/octet-stream"


def file_of(photo: Photo) -> tuple[bytes, str]:
    """The file of a photo and its media type; what is no file yet becomes a PNG.

    Raises:
        InputError: a file that cannot be read, or what is no photo.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo), ANY
    if isinstance(photo, str | os.PathLike):
        return read(Path(photo)), mimetypes.guess_type(os.fspath(photo))[0] or ANY
    if isinstance(photo, np.ndarray):
        return _png(_image_of(photo)), "image/png"
    if hasattr(photo, "save") and hasattr(photo, "getexif"):
        return _png(photo), "image/png"
    raise InputError(f"photo: wanted a path, bytes, an image of Pillow's or an array, got {type(photo).__name__}")


def read(path: Path) -> bytes:
    """A file's bytes. Raises InputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _image_of(array: NDArray[Any]) -> Image:
    from PIL import Image

    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits or 0 in array.shape:
        wanted = "photo: wanted an array (H, W), (H, W, 3) or (H, W, 4) of uint8"
        raise InputError(f"{wanted}, got {array.dtype} of shape {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def _png(image: Image) -> bytes:
    """The image as a PNG that keeps its orientation and its colour profile."""
    file = io.BytesIO()
    try:
        image.save(file, "PNG", compress_level=1, exif=image.getexif(), icc_profile=image.info.get("icc_profile"))
    except (OSError, ValueError) as error:
        raise InputError(f"photo: wanted an image that a PNG can hold, got the mode {image.mode}: {error}") from None
    return file.getvalue()
