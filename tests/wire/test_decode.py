from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import Layout, Order, decode, from_list
from tests.wire.photos import PIXELS, bomb, encoded, jpeg, png, png_of, refusal

LIMITS = Limits(max_bytes=100_000, max_pixels=10_000, max_side=2_000)


def pixels(data: bytes) -> list[Any]:
    return np.asarray(decode(data, LIMITS).image).tolist()


def refused(data: object, limits: Limits = LIMITS, **options: Any) -> RequestError:
    read: Any = decode if isinstance(data, bytes) and not options else from_list
    error = refusal(read, data, limits=limits, **options)
    assert error is not None
    return error


# Encoded files


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WebP", {"lossless": True})])
def test_lossless_formats_keep_every_pixel(form: str, options: dict[str, Any]) -> None:
    photo = decode(encoded(Image.fromarray(PIXELS), form, **options), LIMITS)
    assert np.array_equal(np.asarray(photo.image), PIXELS)
    assert (photo.source_format, photo.mode, photo.size) == (form, "RGB", (2, 3))


def test_jpeg_is_close() -> None:
    flat = Image.new("RGB", (16, 8), (200, 100, 50))
    photo = decode(encoded(flat, "JPEG", quality=100, subsampling=0), LIMITS)
    assert np.abs(np.asarray(photo.image, dtype=int) - (200, 100, 50)).max() <= 2
    assert (photo.source_format, photo.mode, photo.size) == ("JPEG", "RGB", (8, 16))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(form: str, orientation: int) -> None:
    # What a camera stores, so that turning it by the tag shows a bright block in the upper left of a 48 × 32 photo.
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :16] = 255
    upright[:16, 32:] = 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    photo = decode(encoded(image, form, exif=exif.tobytes(), quality=95), LIMITS)
    assert photo.size == (32, 48)
    assert np.abs(np.asarray(photo.image, dtype=int)[4:-4:8, 4:-4:8] - upright[4:-4:8, 4:-4:8]).max() <= 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_exif_counts_as_upright(exif: bytes) -> None:
    assert decode(encoded(Image.fromarray(PIXELS), "PNG", exif=exif), LIMITS).size == (2, 3)
    assert decode(encoded(Image.fromarray(PIXELS), "JPEG", exif=exif), LIMITS).size == (2, 3)


def test_orientation_out_of_range_counts_as_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert decode(encoded(Image.fromarray(PIXELS), exif=exif.tobytes()), LIMITS).size == (2, 3)


def test_grey_modes() -> None:
    grey = np.array([[0, 100, 255]], dtype=np.uint8)
    assert pixels(encoded(Image.fromarray(grey))) == [[[v] * 3 for v in (0, 100, 255)]]
    assert pixels(encoded(Image.fromarray(grey > 99))) == [[[v] * 3 for v in (0, 255, 255)]]


def test_grey_with_alpha_is_over_white() -> None:
    data = encoded(Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8)))
    assert decode(data, LIMITS).mode == "LA"
    assert pixels(data) == [[[100] * 3, [255] * 3]]


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WebP", {"lossless": True, "exact": True})])
def test_colour_with_alpha_is_over_white(form: str, options: dict[str, Any]) -> None:
    data = encoded(
        Image.fromarray(np.array([[[9, 9, 9, 0], [255, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)), form, **options
    )
    assert decode(data, LIMITS).mode == "RGBA"
    assert pixels(data) == [[[255, 255, 255], [255, 0, 0], [204, 204, 204]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_transparency_is_kept_where_it_is_asked_for(mode: str, orientation: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8), "RGBA")
    exif = Image.Exif()
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    exif[0x0112] = orientation
    file = encoded(image.convert("RGB").convert("P") if mode == "P" else image.convert(mode), exif=exif, **options)
    plain, kept = decode(file, Limits()), decode(file, Limits(), alpha=True)
    assert plain.transparent is None and plain.image == kept.image
    stored = Image.open(io.BytesIO(file)).convert("RGBA")
    upright = stored.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else stored
    assert kept.transparent == upright
    over = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    assert kept.image == over.convert("RGB")


def test_opaque_photos_have_no_transparency_to_keep() -> None:
    assert decode(png(), Limits(), alpha=True).transparent is None
    assert from_list([[[1, 2, 3]]], alpha=True).transparent is None
    kept = from_list([[[1, 2, 3, 0]]], order="bgr", alpha=True)
    assert kept.transparent is not None and kept.transparent.getpixel((0, 0)) == (3, 2, 1, 0)
    assert kept.image.getpixel((0, 0)) == (255, 255, 255)


def test_palette() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert decode(encoded(image), LIMITS).mode == "P"
    assert pixels(encoded(image)) == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert pixels(encoded(image, transparency=1)) == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    assert pixels(encoded(image, transparency=b"\xff\x00\xff")) == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


def test_colour_with_one_transparent_colour() -> None:
    assert pixels(encoded(Image.fromarray(PIXELS), transparency=(0, 10, 20)))[0][0] == [255, 255, 255]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "wanted"),
    [
        (1, 0, b"\x40", "0000", [[255] * 3, [255] * 3]),
        (2, 0, b"\x70", "0001", [[255] * 3, [255] * 3]),
        (2, 0, b"\x60", "0001", [[255] * 3, [170] * 3]),
        (4, 0, b"\x5f", "0005", [[255] * 3, [255] * 3]),
        (4, 0, b"\x2e", "000e", [[34] * 3, [255] * 3]),
        (16, 0, bytes.fromhex("12341235"), "1234", [[255] * 3, [18] * 3]),
        (16, 2, bytes.fromhex("123456789abcffff00000000"), "123456789abc", [[255] * 3, [255, 0, 0]]),
    ],
)
def test_one_transparent_colour_at_every_depth(
    depth: int, colour: int, row: bytes, transparent: str, wanted: list[list[int]]
) -> None:
    assert pixels(png_of(2, 1, depth, colour, b"\0" + row, tRNS=bytes.fromhex(transparent))) == [wanted]


def test_sixteen_bit_grey_keeps_the_high_byte() -> None:
    image = Image.fromarray(np.array([[0, 255, 256, 0x8000, 65535]], dtype=np.uint16))
    assert decode(encoded(image), LIMITS).mode == "I;16"
    assert pixels(encoded(image)) == [[[v] * 3 for v in (0, 0, 1, 128, 255)]]


def test_cmyk_jpeg_shows_its_colours() -> None:
    # White, red, and half black, in inks.
    inks = np.repeat(np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 127]]], dtype=np.uint8), 16, axis=1)
    data = encoded(Image.fromarray(np.repeat(inks, 16, axis=0), mode="CMYK"), "JPEG", quality=100, subsampling=0)
    assert decode(data, LIMITS).mode == "CMYK"
    row = np.asarray(decode(data, LIMITS).image, dtype=int)[8, 8::16]
    assert np.abs(row - [[255, 255, 255], [255, 0, 0], [128, 128, 128]]).max() <= 6


def test_ycbcr_jpeg() -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50)).convert("YCbCr")
    assert np.abs(np.array(pixels(encoded(image, "JPEG", quality=100))) - (200, 100, 50)).max() <= 3


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WebP", save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(data) == [[[255, 0, 0]] * 2] * 2


def test_empty() -> None:
    error = refused(b"")
    assert (error.status, error.field) == (400, "image")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"BM" + bytes(20), "BMP"),
        (b"II*\0" + bytes(20), "TIFF; export it as JPEG or PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC ('heic'); export it as JPEG or PNG"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "AVIF ('avif'); export it as JPEG or PNG"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "an ISO media file ('mp42'); export"),
        (b"%PDF-1.7", "PDF"),
        (b"<html>", "markup"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"hello world", "68 65 6c"),
    ],
)
def test_other_formats_are_415(data: bytes, seen: str) -> None:
    error = refused(data)
    assert (error.status, error.field) == (415, "image")
    assert "JPEG, PNG or WebP" in error.message
    assert seen in error.message


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP"])
def test_truncated_is_400(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form, quality=90)
    decode(whole, LIMITS)
    for kept in (12, 40, len(whole) // 4, len(whole) // 2, len(whole) - 200):
        error = refused(whole[:kept])
        assert (error.status, error.field) == (400, "image"), kept
        assert form in error.message


def test_too_many_bytes() -> None:
    error = refused(jpeg(), Limits(max_bytes=100))
    assert error.status == 413
    assert "at most 100 bytes" in error.message


def test_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    for global_limit in (None, 100, 10**12):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", global_limit)
        error = refused(bomb(60_000, 60_000))
        assert error.status == 413
        assert "3,600,000,000 (60000 × 60000)" in error.message


def test_global_pixel_limit_of_pillow_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert decode(png(50, 60), LIMITS).size == (50, 60)


def test_sides_are_limited() -> None:
    assert decode(png(5, 2_000), LIMITS).size == (5, 2_000)
    assert refused(png(2, 2_001)).status == 413


def test_bytearray_and_memoryview() -> None:
    assert decode(bytearray(png()), LIMITS).size == (2, 3)
    assert decode(memoryview(png()), LIMITS).size == (2, 3)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]))
def test_arbitrary_bytes_raise_nothing_else(data: bytes, magic: bytes) -> None:
    error = refusal(decode, magic + data, LIMITS)
    assert error is None or error.status in (400, 413, 415)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_flipped_byte_raises_nothing_else(place: int, value: int) -> None:
    data = bytearray(jpeg(16, 16))
    data[place % len(data)] = value
    error = refusal(decode, data, LIMITS)
    assert error is None or error.status in (400, 413, 415)


# Nested lists

RGB_LIST = [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("nested", "layout", "order", "expected"),
    [
        (RGB_LIST, "hwc", "rgb", RGB_LIST),
        (RGB_LIST, "hwc", "bgr", [[[3, 2, 1], [6, 5, 4]]]),
        ([[[1, 4]], [[2, 5]], [[3, 6]]], "chw", "rgb", RGB_LIST),
        ([[[1, 4]], [[2, 5]], [[3, 6]]], "chw", "bgr", [[[3, 2, 1], [6, 5, 4]]]),
        ([[7, 255, 0]], "hwc", "rgb", [[[7] * 3, [255] * 3, [0] * 3]]),
        ([[7, 255, 0]], "hwc", "bgr", [[[7] * 3, [255] * 3, [0] * 3]]),
        ([[[9, 9, 9, 0], [1, 2, 3, 255]]], "hwc", "rgb", [[[255] * 3, [1, 2, 3]]]),
        ([[[9, 9, 9, 0], [1, 2, 3, 255]]], "hwc", "bgr", [[[255] * 3, [3, 2, 1]]]),
    ],
)
def test_lists(nested: list[Any], layout: Layout, order: Order, expected: list[Any]) -> None:
    for form in (nested, json.dumps(nested).encode(), msgspec.Raw(json.dumps(nested, indent=1).encode())):
        photo = from_list(form, layout, order)
        assert photo.source_format == "list"
        assert photo.image.mode == "RGB"
        assert np.asarray(photo.image).tolist() == expected


BAD_LISTS: list[tuple[Any, str]] = [
    ([[[1, 2, 3], [4, 5, 6]], [[1, 2, 3]]], "ragged"),
    ([[[1, 2, 3], [4, 5]]], "ragged list: at depth 2, the first list has 3 entries and list 1 has 2"),
    ([[1, 2], [3]], "ragged"),
    ([[1, 2], 3], "a list"),
    ([[[1, 2, 3], [4, 5, 6.5]]], "6.5 (a fraction)"),
    ([[[1.0, 2, 3]]], "1.0 (a fraction)"),
    ([[["1", "2", "3"]]], "'1' (a string)"),
    ([[[True, 2, 3]]], "True (a boolean)"),
    ([[[None, 2, 3]]], "None (null)"),
    ([[[{}, 2, 3]]], "{} (an object)"),
    ([[[256, 2, 3]]], "256"),
    ([[[0, -1, 3]]], "-1"),
    ([[[0, 10**18, 3]]], "1000000000000000000"),
    ([[[0, 10**40, 3]]], ""),
    ([], "got 0"),
    ([[]], "1×0"),
    ([[[]]], "1×1×0"),
    ([[[], []], [[], []]], "2×2×0"),
    ([[[], [1]]], "ragged"),
    ([1, 2, 3], "got 3"),
    ([[[1, 2]]], "1×1×2"),
    ([[[1, 2, 3, 4, 5]]], "1×1×5"),
    ([[[[1, 2, 3]]]], "deeper"),
    (7, "got 7"),
    ("abc", "'abc'"),
    (None, "None"),
    ({"a": 1}, "'a': 1"),
]


@pytest.mark.parametrize(("nested", "words"), BAD_LISTS)
def test_bad_lists_are_400_and_say_what_was_given(nested: Any, words: str) -> None:
    forms: list[Any] = [json.dumps(nested).encode(), msgspec.Raw(json.dumps(nested, indent=2).encode())]
    for form in [nested, *forms] if not isinstance(nested, bytes) else forms:
        error = refused(form, field="img_data")
        assert (error.status, error.field) == (400, "img_data")
        assert words in error.message


@pytest.mark.parametrize("text", [b"[[[1,2,3]", b"[[[1 2 3]]]x", b"[[[\xff]]]", b"", b"[" * 5000])
def test_lists_that_are_not_json(text: bytes) -> None:
    assert refused(text, field="img_data").status == 400


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"[1.5,2]", "'.' among"),
        (b"[true,2]", "'true' among"),
        (b"[-1,2]", "'-' among"),
        (b"[1]", "ragged"),
        (b"[]", "ragged"),
        (b"[300,2]", "from 0 to 300"),
    ],
)
def test_long_lists_are_refused_without_parsing_them(row: bytes, words: str) -> None:
    text = b"[" + b",".join([b"[0,0]"] * 400_000 + [row]) + b"]"
    error = refused(msgspec.Raw(text), field="img_data")
    assert (error.status, error.field) == (400, "img_data")
    assert words in error.message


def test_wrong_layout() -> None:
    assert "3×H×W" in refused(RGB_LIST, layout="chw").message
    assert refused([[1, 2]], layout="chw").status == 400


def test_list_with_too_many_pixels() -> None:
    assert refused([[0] * 101] * 100, field="img_data").status == 413
    assert from_list([[0] * 100] * 100, limits=LIMITS).size == (100, 100)


nested_lists = st.recursive(
    st.one_of(
        st.integers(-2, 260), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=30,
)


@given(nested_lists)
def test_json_text_and_parsed_list_agree(nested: Any) -> None:
    answers = []
    for form in (nested, json.dumps(nested).encode()):
        try:
            answers.append(np.asarray(from_list(form).image).tolist())
        except RequestError as error:
            answers.append(error.status)
    assert answers[0] == answers[1]


def test_image_is_not_tied_to_the_bytes() -> None:
    data = png()
    photo = decode(data, LIMITS)
    assert photo.image.load() is not None
    assert encoded(photo.image) == encoded(Image.open(io.BytesIO(data)))


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan costs the decoder a pass over all blocks, and needs only a few bytes."""
    photo = encoded(Image.new("RGB", (64, 48)), "JPEG", progressive=True)
    last = photo.rindex(b"\xff\xda")
    bomb = photo[:last] + photo[last:-2] * 1000 + photo[-2:]
    error = refusal(decode, bomb, Limits())
    assert error is not None
    assert (error.status, error.field) == (413, "image")
    assert "100 scans" in error.message
    assert decode(photo, Limits()).size == (48, 64)


@pytest.mark.parametrize(
    ("filling", "count", "words"),
    [
        (b"\xff\xe1\0\x0cExif\0\0MM\0*", 1001, "1,000 segments"),
        (b"\xff\xe2\0\2", 1001, "1,000 segments"),
        (b"\xff\xdb\0\0", 1001, "1,000 segments"),
        (b"\xff\xd0", 1001, "1,000 segments"),
        (b"\xff\xe2\0\2" + bytes(100_001), 1, "100,000 bytes between"),
        (b"\xff", 100_001, "100,000 bytes between"),
        (b"\xff\xe2\0\2\0", 100_001, "1,000 segments"),
        (b"\xff\0", 50_001, "100,000 bytes between"),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_a_jpeg_padded_before_its_scan_is_refused_before_pillow_reads_it(
    filling: bytes, count: int, words: str, ends: bool
) -> None:
    """Pillow reads segments one by one, joining EXIF blocks anew for each, and what lies between byte by byte."""
    photo = jpeg()
    padded = photo[:2] + filling * count + (photo[2:] if ends else b"")
    error = refused(padded, Limits())
    assert (error.status, error.field) == (413, "image")
    assert words in error.message
    assert decode(photo[:2] + b"\xff" * 50 + b"\xff\xe2\0\2" * 500 + photo[2:], Limits()).size == (48, 64)


@pytest.mark.parametrize("name", [b"teSt", b"IDAT", b"iCCP"])
def test_a_png_of_very_many_chunks_is_refused(name: bytes) -> None:
    empty = bytes(4) + name + zlib.crc32(name).to_bytes(4)
    data = png()
    place = data.index(b"IDAT") - 4
    error = refused(data[:place] + empty * 100_000 + data[place:], Limits())
    assert (error.status, error.field) == (413, "image")
    assert "100,000 chunks" in error.message


def test_a_webp_bomb_is_too_large_whatever_pillow_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (16383, 4)), "WebP", lossless=True)
    for global_limit in (None, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", global_limit)
        assert refused(data, Limits(max_pixels=1000)).status == 413


def test_the_first_of_a_phones_two_pictures() -> None:
    first, second = Image.new("RGB", (32, 16), "white"), Image.new("RGB", (8, 8))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    photo = decode(data, LIMITS)
    assert (photo.source_format, photo.size) == ("JPEG", (16, 32))
    assert np.asarray(photo.image).min() == 255


@pytest.mark.parametrize(("mode", "values"), [("LA", [0x4080, 0xFFFF]), ("RGB", [0x4080, 0x80FF, 0xFF00])])
def test_sixteen_bit_colour_keeps_the_high_byte(mode: str, values: list[int]) -> None:
    assert pixels(sixteen_bit({"LA": 4, "RGB": 2}[mode], values)) == [
        [[0x40] * 3] if mode == "LA" else [[0x40, 0x80, 0xFF]]
    ]


def sixteen_bit(kind: int, values: list[int]) -> bytes:
    """A PNG of one pixel, 16 bits a channel, which Pillow does not write."""
    header = struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"\0" + struct.pack(f">{len(values)}H", *values))),
        (b"IEND", b""),
    )
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("nested", "layout", "expected"),
    [
        (RGB_LIST, "chw", RGB_LIST),
        ([[[1, 4]], [[2, 5]], [[3, 6]]], "hwc", RGB_LIST),
        # Both fit: the server's own counts.
        ([[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]], "hwc", [[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]]),
        ([[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]], "chw", [[[1, 4, 7], [2, 5, 8], [3, 6, 9]]]),
    ],
)
def test_either_layout(nested: list[Any], layout: Layout, expected: list[Any]) -> None:
    for form in (nested, msgspec.Raw(json.dumps(nested).encode())):
        assert np.asarray(from_list(form, layout, either=True).image).tolist() == expected


def test_neither_layout() -> None:
    error = refused([[[1, 2], [3, 4]]], layout="chw", either=True)
    assert (error.status, "prepare_input.py --layout chw" in error.message) == (400, True)
    assert refused([[1, 2]], layout="chw", either=True).status == 400
