"""Decoder of the photos that clients send: an encoded file, or a nested list of integers.

Whatever arrives becomes upright RGB, 8 bits a channel:

- EXIF orientation is applied (an unreadable EXIF block counts as upright);
- colours are converted to sRGB by the file's ICC profile, see :mod:`imagexplain.vision.colour`. Nothing else that a
  file says of its colours is regarded: a PNG's ``gAMA``, ``cHRM``, ``sRGB`` and ``cICP``, EXIF's ``ColorSpace``;
- transparency is composited over white, as a browser shows it, not over the hidden colour of the transparent pixels;
  for a model whose input has alpha, the photo keeps both beside it;
- 16-bit grey keeps its high byte, as Pillow reads 16-bit colour;
- CMYK without a profile is converted by inks that are ideal; JPEGs store it inverted, which Pillow undoes;
- of an animation or a phone's several pictures in one file, the first counts.

Nothing here depends on Pillow's global settings (``MAX_IMAGE_PIXELS``): TorchServe's vision handler switches them off.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from imagexplain.errors import RequestError, shown
from imagexplain.limits import Limits
from imagexplain.vision.colour import MAX_PROFILE_BYTES, to_srgb

Layout = Literal["hwc", "chw"]
Order = Literal["rgb", "bgr"]
Pixels = NDArray[np.uint8]

# Opened by class, not by Image.open, whose own bomb check follows a global setting.
_READERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
}
FORMATS = tuple(_READERS)

_PNG = b"\x89PNG\r\n\x1a\n"

_SCAN = b"\xff\xda"  # never within a scan, where every ff is followed by 00 or a restart marker
MAX_SCANS = 100  # progressive encoders write about ten, and a thumbnail some of its own
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_BARE = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})  # markers without a length
MAX_SEGMENTS = 1000  # of a JPEG, before its first scan; full ones of 64 KB, above what a request may hold
MAX_PADDING = 100_000  # bytes between them
MAX_CHUNKS = 100_000  # of a PNG; encoders write one for 8 KB or more

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_OTHER_FORMATS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"\x1f\x8b": "gzip-compressed data",
    b"PK": "a zip file",
    b"<svg": "SVG",
    b"<": "markup",
    b"\x93NUMPY": "a NumPy array",
}

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
_PICTURES = ("GIF", "BMP", "TIFF", "SVG")
_INSTEAD = "export it as JPEG or PNG"

_NOT_STRUCTURE = b"0123456789 \t\r\n"
_NOT_VALUES = b"[] \t\r\n"
_RANGE = "integers in 0..255"
_SMALL = 2_000_000
"""Size of JSON, in bytes, up to which a bad list is parsed to find the entry at fault; a hostile 30 MB take 10 s."""


@dataclass(frozen=True)
class Photo:
    """An upright photo.

    Attributes:
        image: RGB image, after EXIF orientation.
        source_format: Format of the source: ``JPEG``, ``PNG``, ``WebP`` or ``list``.
        mode: Pillow mode of the file as it came (``CMYK``, ``P``, ``I;16``, …); for lists ``L``, ``RGB`` or ``RGBA``.
        encoded: Encoded file itself, None for lists.
        transparent: RGBA image, with the colours that transparency hides, where the source has any and it was asked
            for.
    """

    image: Image.Image
    source_format: str
    mode: str
    encoded: bytes | None = None
    transparent: Image.Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.image.height, self.image.width


def decode(data: bytes | bytearray | memoryview, limits: Limits, field: str = "image", *, alpha: bool = False) -> Photo:
    """Decode the photo in an encoded file.

    Args:
        data: Bytes of the file.
        limits: Limits of bytes, pixels and sides.
        field: Name of the request's field, for errors.
        alpha: Flag for a photo that keeps its transparency as well.

    Raises:
        RequestError: 400 empty, truncated or damaged; 413 too many bytes or pixels; 415 none of ``FORMATS``.
    """
    data = bytes(data)
    if not data:
        raise RequestError(400, field, f"wanted an encoded image ({', '.join(FORMATS)}), got nothing")
    if len(data) > limits.max_bytes:
        raise RequestError(413, field, f"wanted at most {limits.max_bytes:,} bytes, got {len(data):,}")
    source_format = _sniff(data)
    if source_format is None:
        raise RequestError(415, field, f"wanted {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {_seen(data)}")
    try:
        if source_format == "JPEG":
            _check_segments(data, field)
            _check_scans(data, field)
        readable, profile = split_profile(data, field)
        with _READERS[source_format](io.BytesIO(readable)) as file:
            _check_pixels(file.height, file.width, limits, field)
            if source_format == "PNG":
                _scale_transparent_colour(file)
            file.load()
            mode = file.mode
            colours = _colours(file, profile or file.info.get("icc_profile"))
            image = _upright(colours, _orientation(file))
    except RequestError:
        raise
    except Image.DecompressionBombError as error:  # the WebP reader asks Pillow's limit before ours can be asked
        raise RequestError(413, field, f"wanted at most {limits.max_pixels:,} pixels: {error}") from error
    except Exception as error:  # Pillow's readers raise a dozen types on damaged files
        reason = str(error) or type(error).__name__
        raise RequestError(400, field, f"the {source_format} is truncated or damaged: {reason}") from error
    return _photo(image.copy() if image is file else image, source_format, mode, data, alpha=alpha)


def from_base64(value: object, field: str = "image") -> bytes:
    """Decode the bytes of a file that stands in JSON as base64 text. Raises RequestError 400."""
    if not isinstance(value, str):
        raise RequestError(400, field, f"wanted a file in base64, got {shown(value)}")
    if value.startswith("data:"):
        raise RequestError(400, field, f"wanted base64 alone, got a data URL ({shown(value[:30])})")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, field, f"wanted a file in base64: {error}") from error


def from_list(
    nested: object,
    layout: Layout = "hwc",
    order: Order = "rgb",
    limits: Limits | None = None,
    field: str = "img_data",
    *,
    either: bool = False,
    alpha: bool = False,
) -> Photo:
    """Decode the photo in a nested list of integers in 0..255.

    Args:
        nested: Lists H×W (grey), H×W×3 or H×W×4 (colour with alpha, composited over white); with ``chw`` 3×H×W. Already
            parsed lists, or the JSON text of them as bytes or ``msgspec.Raw``, which is read several times faster.
        layout: Place of the channels.
        order: Order of the colour channels.
        either: Tolerance of the other layout: a list of three channels that fits only the other is taken as of that
            one. A list that fits both, 3×N×3, is taken as of ``layout``.
        alpha: Flag for a photo that keeps its transparency as well.

    Raises:
        RequestError: 400 for anything that is not such a list, 413 for too many pixels.
    """
    pixels, layout = _pixels(nested, layout, field, either)
    if layout == "chw":
        pixels = pixels.transpose(1, 2, 0)
    _check_pixels(pixels.shape[0], pixels.shape[1], limits or Limits(), field)
    if pixels.ndim == 3 and order == "bgr":
        pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return _photo(_colours(image), "list", image.mode, alpha=alpha)


def _sniff(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    return None


def _seen(data: bytes) -> str:
    """Description of unsupported data, for a person."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        name = "HEIC" if brand in _HEIC else "AVIF" if brand in _AVIF else "an ISO media file"
        return f"{name} ({shown(brand.decode('latin-1'))}); {_INSTEAD}"
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            return f"{name}; {_INSTEAD}" if name in _PICTURES else name
    return f"{len(data):,} bytes that begin with {data[:8].hex(' ')}"


def _check_pixels(height: int, width: int, limits: Limits, field: str) -> None:
    if height * width > limits.max_pixels:
        given = f"{height * width:,} ({width} × {height})"
        raise RequestError(413, field, f"wanted at most {limits.max_pixels:,} pixels, got {given}")
    if max(height, width) > limits.max_side:
        raise RequestError(413, field, f"wanted sides of at most {limits.max_side:,} pixels, got {width} × {height}")


def _check_scans(data: bytes, field: str) -> None:
    """Refuse a JPEG of many nearly empty scans, each of which costs the decoder a pass over the whole photo."""
    scans = data.count(_SCAN)
    if scans > MAX_SCANS:
        raise RequestError(413, field, f"wanted a JPEG of at most {MAX_SCANS} scans, got {scans}")


def _check_segments(data: bytes, field: str) -> None:
    """Refuse a JPEG of many segments before the first scan: Pillow's time for 30 MB of them is minutes."""
    place = 2
    segments = padding = marker = 0
    while marker != _SCAN[1] and place < len(data):
        found = _MARKER.search(data, place)
        segments, padding = segments + 1, padding + (found.start() if found else len(data)) - place
        if segments > MAX_SEGMENTS:
            raise RequestError(413, field, f"wanted a JPEG of at most {MAX_SEGMENTS:,} segments, got more")
        if padding > MAX_PADDING:
            raise RequestError(413, field, f"wanted at most {MAX_PADDING:,} bytes between a JPEG's segments, got more")
        if found is None:
            return
        place, marker = found.end(), found[1][0]
        if marker not in _BARE:
            place += max(2, int.from_bytes(data[place : place + 2]))


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block must not cost the client its photo
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _scale_transparent_colour(file: ImageFile) -> None:
    """Scale the one transparent colour of a PNG that is not yet loaded as Pillow scales its pixels to 8 bits.

    Of 16 bits for each colour Pillow keeps the upper 8: other colours of the same upper bits are transparent, too.
    """
    colour, (tile, *_) = file.info.get("transparency"), file.tile
    match colour, tile.args:
        case int(), "L;2" | "L;4":
            file.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[tile.args]
        case tuple(), "RGB;16B":
            file.info["transparency"] = tuple(value >> 8 for value in colour)


def _photo(colours: Image.Image, source_format: str, mode: str, encoded: bytes | None = None, *, alpha: bool) -> Photo:
    """Photo of an upright RGB or RGBA image; the latter lies over white, and is kept where alpha is asked for."""
    if colours.mode == "RGB":
        return Photo(colours, source_format, mode, encoded)
    image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return Photo(image, source_format, mode, encoded, colours if alpha else None)


def _colours(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """Image in RGB, or in RGBA if it is transparent: the given one, perhaps changed in place, if it is so already."""
    alpha = None
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16 bits at 255
        values, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        if transparent is not None:
            alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        grey = image.mode == "LA"
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.getchannel("R") if grey else image.convert("RGB")
    if profile:
        image = to_srgb(image if image.mode in ("L", "CMYK") else _as_rgb(image), profile)
    image = _as_rgb(image)
    if alpha is None:
        return image
    image.putalpha(alpha)
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def split_profile(data: bytes, field: str) -> tuple[bytes, bytes | None]:
    """Cut the ICC profile out of a PNG, if it is one: Pillow takes one that it cannot unpack for a damaged photo.

    Returns:
        The PNG without it, and the profile, None if there is none or it is damaged.

    Raises:
        RequestError: 413 for a PNG of very many chunks, which Pillow reads one by one.
    """
    if not data.startswith(_PNG):
        return data, None
    kept, start, place, chunks, profile, name = [], 0, len(_PNG), 0, None, b""
    while name != b"IEND" and place + 8 <= len(data):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise RequestError(413, field, f"wanted a PNG of at most {MAX_CHUNKS:,} chunks, got more")
        name, end = data[place + 4 : place + 8], place + 12 + int.from_bytes(data[place : place + 4])
        if name == b"iCCP":
            profile = profile or _unpacked(data[place + 8 : end - 4])
            kept.append(data[start:place])
            start = end
        place = end
    return b"".join([*kept, data[start:]]) if kept else data, profile


def _unpacked(content: bytes) -> bytes | None:
    """Profile in an iCCP chunk: a name, a zero, the method, and the compressed profile. None if it is damaged."""
    try:
        return zlib.decompressobj().decompress(content.partition(b"\0")[2][1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None


def _pixels(nested: object, layout: Layout, field: str, either: bool) -> tuple[Pixels, Layout]:
    """Pixels of ``nested`` as a uint8 array, and the layout that its shape fits."""
    if isinstance(nested, msgspec.Raw | bytes | bytearray):
        text = bytes(nested if isinstance(nested, msgspec.Raw) else _parse(nested, field, msgspec.Raw))
        array = _read(text)
        if array is None and len(text) > _SMALL:
            raise RequestError(400, field, _irregular(text))
        if array is None:
            array = _convert(_parse(text, field), field)
    else:
        array = _convert(nested, field)
    if not _fits(array, layout):
        other: Layout = "hwc" if layout == "chw" else "chw"
        if not (either and array.ndim == 3 and 3 in (array.shape[0], array.shape[2]) and _fits(array, other)):
            wanted = "3×H×W" if layout == "chw" else "H×W×3, H×W×4 or H×W (grey)"
            wanted += f" (prepare_input.py --layout {layout})" if either else ""
            raise RequestError(400, field, f"wanted a nested list {wanted}, got {_times(array.shape)}")
        layout = other
    if 0 in array.shape:
        raise RequestError(400, field, f"wanted at least one pixel, got a list of {_times(array.shape)}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise RequestError(400, field, f"wanted {_RANGE}, got values from {shown(low)} to {shown(high)}")
    return array.astype(np.uint8), layout


def _fits(array: NDArray[Any], layout: Layout) -> bool:
    if layout == "chw":
        return array.ndim == 3 and array.shape[0] == 3
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _parse(text: bytes | bytearray, field: str, form: Any = Any) -> Any:
    try:
        return msgspec.json.decode(text, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            400, field, f"wanted a nested list of {_RANGE}, got JSON that does not parse: {error}"
        ) from error


def _read(text: bytes) -> NDArray[np.int64] | None:
    """Read the array in a valid JSON text without making a Python object of every number.

    Without its digits, a regular array of natural numbers is one element's brackets and commas over and over; if that
    holds, the digits and commas alone are the array. Anything else (a sign, a fraction, a string, a ragged row) gives
    None, and the slow way finds the words for it.
    """
    shape = _shape(text.translate(None, _NOT_STRUCTURE))
    if not shape:
        return None
    try:
        numbers = np.fromstring(text.translate(None, _NOT_VALUES).decode("ascii"), dtype=np.int64, sep=",")
    except ValueError:
        return None
    # An empty list and a list of one number leave the same brackets; the count tells them apart.
    return numbers.reshape(shape) if numbers.size == math.prod(shape) else None


def _shape(brackets: bytes) -> tuple[int, ...] | None:
    """Shape of a regular nested list, by its brackets and commas alone; None if it is not regular."""
    depth = len(brackets) - len(brackets.lstrip(b"["))
    if depth == 0:
        return () if not brackets else None
    if depth > 3:
        return None
    inner = brackets[1:-1]
    end = inner.find(b"]" * (depth - 1)) if depth > 1 else 0
    element = inner[: end + depth - 1]
    count = (len(inner) + 1) // (len(element) + 1)
    if end < 0 or brackets != b"[" + b",".join([element] * count) + b"]":
        return None
    rest = _shape(element)
    return None if rest is None else (count, *rest)


def _irregular(text: bytes) -> str:
    """Fault that keeps a long JSON text from being an array, found without parsing it."""
    foreign = text.translate(None, _NOT_STRUCTURE + b"[],")
    if foreign:
        seen = bytes(dict.fromkeys(foreign[:8])).decode("latin-1")
        return f"wanted {_RANGE}, got a list with {shown(seen)} among the numbers"
    return "wanted rows of one length, got a ragged or empty list, or one nested deeper than three"


def _convert(nested: object, field: str) -> NDArray[np.int64]:
    """Convert a parsed list to an array; the slow way, with a message for everything that can be wrong with it."""
    if not isinstance(nested, list | tuple):
        raise RequestError(400, field, f"wanted a nested list of {_RANGE}, got {shown(nested)}")
    shape: list[int] = []
    level: list[Any] = [nested]
    while level and all(isinstance(item, list | tuple) for item in level):
        lengths = {len(item) for item in level}
        if len(lengths) > 1:
            raise RequestError(
                400, field, f"wanted rows of one length, got a ragged list: {_ragged(level, len(shape))}"
            )
        shape.append(lengths.pop())
        if len(shape) > 3:
            raise RequestError(
                400, field, f"wanted a list nested two or three deep, got {_times(tuple(shape))} and deeper"
            )
        level = list(chain.from_iterable(level))
    for item in level:
        if type(item) is not int:  # a boolean is an int, but not a value of a pixel
            raise RequestError(400, field, f"wanted {_RANGE}, got {shown(item)} ({_kind(item)})")
        if not 0 <= item <= 255:
            raise RequestError(400, field, f"wanted {_RANGE}, got {shown(item)}")
    return np.array(level, dtype=np.int64).reshape(shape)


def _ragged(level: list[Any], depth: int) -> str:
    first = len(level[0])
    index = next(i for i, item in enumerate(level) if len(item) != first)
    return f"at depth {depth}, the first list has {first} entries and list {index} has {len(level[index])}"


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        float: "a fraction",
        str: "a string",
        type(None): "null",
        dict: "an object",
        list: "a list",
    }
    return names.get(type(value), type(value).__name__)
