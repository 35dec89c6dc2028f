"""Photos whose colours are not sRGB's: expected values are from the colour spaces' published definitions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from imagexplain.limits import Limits
from imagexplain.vision.colour import MAX_PROFILE_BYTES
from imagexplain.vision.decode import decode
from imagexplain.vision.masks import parse_masks
from tests.wire import profiles
from tests.wire.photos import encoded

COLOURS = np.array(
    [
        [[0, 0, 0], [255, 255, 255], [128, 128, 128], [200, 120, 90], [0, 255, 0]],
        [[90, 140, 100], [70, 90, 160], [30, 40, 20], [9, 9, 9], [255, 0, 60]],
    ],
    dtype=np.uint8,
)

# From each space's light to sRGB's, as CSS Color 4 and its sample code give them.
TO_SRGB = {
    "display-p3": [[1.22494, -0.22494, 0.0], [-0.042057, 1.042057, 0.0], [-0.0196376, -0.0786361, 1.0982736]],
    "adobe-rgb": [[1.398356, -0.398356, 0.0], [0.0, 1.0, 0.0], [0.0, -0.042929, 1.042929]],
    "prophoto": [[2.034371, -0.727634, -0.306737], [-0.228824, 1.231755, -0.002932], [-0.008551, -0.153266, 1.161817]],
}


def to_light(values: NDArray[Any]) -> NDArray[Any]:
    share = values / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def to_levels(light: NDArray[Any]) -> NDArray[Any]:
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


SPACES: list[tuple[str, bytes, Callable[[NDArray[Any]], NDArray[Any]]]] = [
    ("display-p3", profiles.DISPLAY_P3, to_light),
    ("adobe-rgb", profiles.ADOBE_RGB, lambda values: (values / 255) ** (563 / 256)),
    ("prophoto", profiles.PROPHOTO, lambda values: (values / 255) ** 1.8),
]


def pixels(data: bytes) -> NDArray[Any]:
    return np.asarray(decode(data, Limits()).image).astype(int)


@pytest.mark.parametrize(("name", "profile", "curve"), SPACES)
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WebP", {"lossless": True})])
def test_colours_are_those_of_the_profile(
    name: str, profile: bytes, curve: Any, form: str, options: dict[str, Any]
) -> None:
    expected = to_levels(curve(COLOURS) @ np.array(TO_SRGB[name]).T)
    found = pixels(encoded(Image.fromarray(COLOURS), form, icc_profile=profile, **options))
    assert np.abs(found - expected).max() <= 1.5
    assert np.abs(expected - COLOURS).max() > 10  # the profile matters


def test_jpeg_with_a_profile_and_an_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = Image.new("RGB", (32, 16), (200, 100, 50))
    data = encoded(flat, "JPEG", quality=100, subsampling=0, icc_profile=profiles.DISPLAY_P3, exif=exif.tobytes())
    expected = to_levels(to_light(np.array([200, 100, 50])) @ np.array(TO_SRGB["display-p3"]).T)
    assert decode(data, Limits()).size == (32, 16)
    assert np.abs(pixels(data) - expected).max() <= 4


@pytest.mark.parametrize("profile", [profiles.SRGB, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_srgb_by_profile_is_kept_to_the_bit(profile: bytes) -> None:
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(pixels(encoded(Image.fromarray(every), icc_profile=profile)), every)


def test_grey_by_a_linear_curve() -> None:
    # 55/255 of the light is sRGB's 128, and 128/255 is 188.
    grey = np.array([[0, 55, 128, 255]], dtype=np.uint8)
    data = encoded(Image.fromarray(grey), icc_profile=profiles.grey_profile(profiles.gamma(1)))
    assert np.abs(pixels(data) - [[[v] * 3 for v in (0, 128, 188, 255)]]).max() <= 1


def test_transparent_grey_and_sixteen_bits_by_a_linear_curve() -> None:
    profile = profiles.grey_profile(profiles.gamma(1))
    both = encoded(Image.fromarray(np.array([[[55, 255], [55, 0]]], dtype=np.uint8)), icc_profile=profile)
    assert np.abs(pixels(both) - [[[128] * 3, [255] * 3]]).max() <= 1
    deep = encoded(Image.fromarray(np.array([[55 * 257, 65535]], dtype=np.uint16)), icc_profile=profile)
    assert np.abs(pixels(deep) - [[[128] * 3, [255] * 3]]).max() <= 1


def test_transparency_is_composited_after_the_conversion() -> None:
    """Half of a colour over white, in sRGB's levels: alpha has no profile."""
    clear = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 0]]], dtype=np.uint8)
    opaque = to_levels(to_light(np.array([200, 100, 50])) @ np.array(TO_SRGB["display-p3"]).T)
    found = pixels(encoded(Image.fromarray(clear), icc_profile=profiles.DISPLAY_P3))
    assert np.abs(found - [[opaque, 0.2 * opaque + 0.8 * 255, [255] * 3]]).max() <= 1.5


def test_labels_of_a_mask_are_no_colours() -> None:
    labels = np.array([[0, 55], [128, 255]], dtype=np.uint8)
    file = encoded(Image.fromarray(labels), icc_profile=profiles.grey_profile(profiles.gamma(1)))
    masks = parse_masks(file, (2, 2), Limits())
    assert masks.labels == ("segment 55", "segment 128", "segment 255")


def test_palette_with_a_profile() -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([200, 100, 50, 10, 200, 30])
    expected = to_levels(to_light(np.array([[200, 100, 50], [10, 200, 30]])) @ np.array(TO_SRGB["display-p3"]).T)
    data = encoded(image, icc_profile=profiles.DISPLAY_P3)
    assert np.abs(pixels(data) - [expected]).max() <= 1.5


def inks(corner: tuple[int, ...]) -> Sequence[float]:
    """White paper; yellow of its own; black of L* 16; all else dark red."""
    cyan, magenta, yellow, black = corner
    if black:
        return (16, 0, 0)
    return (40, 50, 30) if cyan or magenta else (89, -5, 93) if yellow else (100, 0, 0)


def test_inks_by_a_printers_profile() -> None:
    """The profile's yellow is L*a*b* (89, −5, 93), in sRGB (250, 222, 0); its black is not black, but ours is."""
    rows = np.array([[[0, 0, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255]]], dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    data = encoded(
        Image.fromarray(rows, "CMYK"), "JPEG", quality=100, subsampling=0, icc_profile=profiles.ink_profile(inks)
    )
    white, yellow, black = pixels(data)[8, 8::16]
    assert white.min() >= 252
    assert np.abs(yellow - lab_to_srgb(89, -5, 93)).max() <= 6
    assert black.max() <= 3


def lab_to_srgb(light: float, a: float, b: float) -> NDArray[Any]:
    """CIELAB under D50 in sRGB's levels, without black point compensation, which moves a light colour little."""
    middle = (light + 16) / 116
    cubes = np.array([middle + a / 500, middle, middle - b / 200])
    xyz = profiles.D50 * np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29))
    to_red = [[3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07195, -0.22899, 1.40524]]
    return to_levels(np.array(to_red) @ xyz)


HALF = len(profiles.DISPLAY_P3) // 2


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"not a profile",
        bytes(4096),
        profiles.DISPLAY_P3[:HALF],
        profiles.DISPLAY_P3[:128] + b"\xff" * 400,
        profiles.ink_profile(inks),
        profiles.grey_profile(profiles.gamma(1)),
        profiles.matrix_profile((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), profiles.D65, profiles.gamma(255)),
        profiles.assembled({}, kind=b"link"),
        profiles.DISPLAY_P3 + bytes(MAX_PROFILE_BYTES),
    ],
    ids=["empty", "text", "zeros", "cut", "tags", "inks", "grey", "black", "link", "oversized"],
)
def test_a_profile_that_cannot_be_used_says_nothing(profile: bytes) -> None:
    image = Image.fromarray(COLOURS)
    for form, options in (("PNG", {}), ("WebP", {"lossless": True}), ("JPEG", {"quality": 100})):
        if profile or form == "PNG":
            given = pixels(encoded(image, form, **options, icc_profile=profile))
            assert np.array_equal(given, pixels(encoded(image, form, **options)))


def test_a_grey_photo_with_a_profile_of_colour_counts_as_srgb() -> None:
    grey = Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8))
    assert pixels(encoded(grey, icc_profile=profiles.ADOBE_RGB)).tolist() == [[[v] * 3 for v in (0, 100, 255)]]


def test_floating_point_stages_are_passed_over() -> None:
    """They may be as many as a profile has bytes for, each computed for every entry of a table."""
    tags = {b"D2B0": profiles.stages(100_001), b"D2B1": profiles.stages(100_001)}
    plain = profiles.DISPLAY_P3
    count = struct.unpack_from(">I", plain, 128)[0]
    entries = [struct.unpack_from(">4sII", plain, 132 + 12 * index) for index in range(count)]
    bomb = profiles.assembled({name: plain[place : place + size] for name, place, size in entries} | tags)
    image = Image.fromarray(COLOURS)
    assert np.array_equal(
        pixels(encoded(image, "WebP", lossless=True, icc_profile=bomb)),
        pixels(encoded(image, "WebP", lossless=True, icc_profile=plain)),
    )


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG of ``COLOURS`` with one more chunk behind its header."""
    plain = encoded(Image.fromarray(COLOURS))
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return plain[:33] + chunk + plain[33:]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (b"iCCP", b"bomb\0\0" + zlib.compress(bytes(50_000_000))),
        (b"iCCP", b"not packed\0\0abc"),
        (b"iCCP", b"another method\0\1" + zlib.compress(profiles.DISPLAY_P3[:9])),
        (b"iCCP", b"no zero"),
        (b"iCCP", b""),
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        (b"sRGB", b"\0"),
        (b"cICP", b"\x0c\x10\0\1"),
    ],
)
def test_other_words_of_a_png_on_its_colours_are_not_regarded(name: bytes, content: bytes) -> None:
    assert np.array_equal(pixels(with_chunk(name, content)), COLOURS)


@given(st.integers(0, len(profiles.DISPLAY_P3) - 1), st.integers(0, 255))
def test_a_flipped_byte_of_a_profile_costs_no_photo(place: int, value: int) -> None:
    profile = bytearray(profiles.DISPLAY_P3)
    profile[place] = value
    assert pixels(encoded(Image.fromarray(COLOURS), icc_profile=bytes(profile))).shape == COLOURS.shape
