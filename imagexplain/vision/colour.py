"""Conversion of colours to sRGB by the ICC profile that came with them.

Networks are trained on sRGB, and pictures are written without a profile. The conversion is LittleCMS's, relative
colorimetric with black point compensation: a colour that sRGB has is kept, one outside goes to sRGB's edge, and black
stays black. The perceptual intent differs only for profiles that hold tables for it, mostly of printers, and would move
the colours that sRGB does have.

A profile that cannot be used (damaged, oversized, of other channels than the photo's, or one that makes nearly
all colours one) says nothing: its photo counts as sRGB, as one without a profile does.
"""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4_000_000
"""Bytes of a profile, above which it is not used; printers' take up to 3 MB."""
MAX_TAGS = 100  # LittleCMS's own bound

_CHANNELS = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
_CLASSES = ("scnr", "mntr", "prtr", "spac")  # what describes a colour space, not a step between two
_HEADER, _ENTRY = 128, 12  # bytes
_STAGES = (b"D2B", b"B2D")
_TOLERANCE = 1  # levels
_MIN_CONTRAST = 16  # levels between the quartiles of all colours; sRGB's are 127 apart
_SIDE = 17  # levels of each channel that are tried


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image to sRGB.

    Args:
        image: Image of mode L, RGB or CMYK; one of RGB may be changed in place.
        profile: ICC profile of the image's colours.

    Returns:
        The image in RGB; ``image`` itself, and unchanged, where the profile cannot be used or is sRGB's own: where it
        moves no colour by more than a level.
    """
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    lattice = _lattice(image.mode)
    colours = np.asarray(transform.apply(lattice)).astype(np.int16)
    quarter, three_quarters = np.percentile(colours, (25, 75))
    if three_quarters - quarter < _MIN_CONTRAST:
        return image
    if image.mode != "CMYK" and np.abs(colours - np.asarray(lattice.convert("RGB"))).max() <= _TOLERANCE:
        return image
    return transform.apply(image, image if image.mode == "RGB" else None)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(_without_stages(profile)))
        if source.profile.device_class not in _CLASSES or _CHANNELS.get(source.profile.xcolor_space) != mode:
            return None
        return ImageCms.ImageCmsTransform(
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception:  # LittleCMS's refusals are of several types
        return None


def _without_stages(profile: bytes) -> bytes:
    """Profile whose chains of floating-point stages are hidden: they are optional, and of any length.

    One of 4 MB can hold so many stages that tabulating them takes minutes; every other tag costs by its own size.
    """
    found = bytearray(profile)
    if len(found) < _HEADER + 4:
        return profile
    (count,) = struct.unpack_from(">I", found, _HEADER)
    for entry in range(_HEADER + 4, _HEADER + 4 + _ENTRY * min(count, MAX_TAGS), _ENTRY):
        if found[entry : entry + 3] in _STAGES:
            found[entry : entry + 3] = b"xxx"
    return bytes(found)


@cache
def _lattice(mode: str) -> Image.Image:
    """Image of a lattice of all colours of a mode, black and white among them."""
    levels = np.rint(np.linspace(0, 255, _SIDE if mode != "CMYK" else 5)).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    channels = np.stack(np.meshgrid(*[levels] * len(mode), indexing="ij"), axis=-1)  # (levels, …, channels)
    return Image.fromarray(channels.reshape(1, -1, len(mode)), mode)
