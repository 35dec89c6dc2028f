from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagexplain.api.options import PictureOptions, picture_options
from imagexplain.api.response import encode
from imagexplain.errors import RequestError
from imagexplain.vision.detections import Detections
from imagexplain.vision.figure import Caption, ColourKey, Row, figure, magnification, magnified, number, shade
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.heatmap import overlay, seen, smoothed
from imagexplain.vision.instance_overlay import LISTED, drawn
from imagexplain.vision.marks import edges, pole, rim
from imagexplain.vision.mask_crops import CroppedMask
from imagexplain.vision.segment_overlay import coloured, marks, smallest
from tests.wire.photos import noise_photo

CAPTION = Caption(
    "a title " * 40,
    ("a line",),
    ColourKey(0.5),
    tuple(Row("x" * 200, ("+1.00", "+50.0%"), (200, 0, 0), row + 1) for row in range(12)),
    ("a note",),
)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (1, 500), (500, 1), (640, 480), (300, 700), (3000, 200)])
def test_the_panel_is_the_photo_untouched_at_the_place_that_is_told(size: tuple[int, int]) -> None:
    photo = noise_photo(*size[::-1])
    factor = magnification(size)
    sheet = Image.open(
        io.BytesIO(encode({}, "image/png", picture=figure(magnified(photo, factor), CAPTION, size, factor)).body)
    )
    told = json.loads(sheet.info["Panel"])
    box = (told["left"], told["top"], told["left"] + told["width"], told["top"] + told["height"])
    assert told["photo"] == list(size) and told["magnification"] == factor
    assert sheet.crop(box).tobytes() == magnified(photo, factor).tobytes()
    assert sheet.info["Title"] == CAPTION.title and "12  " + "x" * 200 + "  +1.00  +50.0%" in sheet.info["Description"]
    rest = np.asarray(sheet.convert("L")).copy()
    rest[box[1] : box[3], box[0] : box[2]] = 255
    assert (rest[: box[1]] < 100).any() and (rest[box[1] :] < 100).any()  # the title above, the legend below or beside


def test_small_photos_are_enlarged_by_whole_factors() -> None:
    assert [magnification(size) for size in ((1, 1), (32, 32), (48, 40), (224, 224), (300, 200), (640, 480))] == [
        *(384, 12, 8, 2, 1, 1)
    ]


def test_a_bare_picture_has_the_photos_size_and_still_tells_what_it_is() -> None:
    picture = figure(noise_photo(20, 32), CAPTION, (32, 20))
    assert picture.size == (32, 20)
    assert json.loads(picture.info["Panel"]) == {
        "left": 0,
        "top": 0,
        "width": 32,
        "height": 20,
        "photo": [32, 20],
        "magnification": 1,
    }


def test_numbers_and_colours() -> None:
    assert [number(value) for value in (3.7, -0.25, 0.0)] == ["+3.70", "−0.250", "0.00"]
    assert number(11, signed=False) == "11.0"
    assert shade(0) == (240, 240, 240)
    assert shade(1)[0] > shade(1)[2] + 100 and shade(-1)[2] > shade(-1)[0] + 100


def test_smoothing_keeps_the_sum_and_cancels_speckle() -> None:
    speckle = torch.ones(64, 64)
    speckle[::2, ::2] = speckle[1::2, 1::2] = -1
    values = speckle + 0.125
    smooth = smoothed(values, 4).values
    assert smooth.sum().item() == pytest.approx(values.sum().item(), rel=1e-5)
    assert smooth[16:48, 16:48].sub(0.125).abs().max() < 1e-4
    assert torch.equal(smoothed(values).values, values)
    with pytest.raises(ValueError, match="sigma"):
        smoothed(values, float("nan"))


def test_what_the_model_does_not_see_is_hatched_in_grey() -> None:
    geometry = Geometry((200, 400), (100, 200), (0, 50, 100, 100))
    assert seen(geometry) == (slice(0, 200), slice(100, 300))
    pixels = np.asarray(overlay(Image.new("RGB", (400, 200), (90, 20, 200)), torch.ones(10, 10), geometry)).astype(int)
    outside = pixels[:, :100]
    assert np.ptp(outside, axis=2).max() == 0 and len(np.unique(outside)) == 2
    assert (pixels[:, 100:300, 0] > pixels[:, 100:300, 2] + 50).all()


@pytest.mark.parametrize("photo", [1, 7, 33, 640])
def test_the_view_is_where_the_map_is_drawn(photo: int) -> None:
    geometry = Geometry((photo, photo), (36, 50), (2, 5, 32, 40))
    rows, columns = seen(geometry)
    drawn = geometry.to_photo(torch.ones(8, 8)) > 0
    wanted = torch.zeros(photo, photo, dtype=torch.bool)
    wanted[rows, columns] = True
    assert torch.equal(drawn, wanted)


def test_the_pole_lies_in_the_widest_part() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[9, :] = True  # a thin line
    mask[5:12, 30:37] = True  # and a square of 7 × 7
    row, column, radius = pole(mask)
    assert (row, column, radius) == (8.5, 33.5, 3.5)
    assert pole(mask, (2, 2)) == (17, 67, 7)
    assert pole(np.ones((1, 1), dtype=bool)) == (0.5, 0.5, 0.5)


def test_each_number_stands_on_what_is_seen_of_its_segment() -> None:
    masks = torch.zeros(4, 30, 30, dtype=torch.bool)
    masks[0, :, :] = True  # a ring about the next
    masks[1, 8:22, 8:22] = True  # halved by the next two: nothing is seen of it
    masks[2, 8:22, 8:15] = True
    masks[3, 8:22, 15:22] = True
    geometry = Geometry((300, 600), (30, 30), (0, 0, 30, 30))
    labels = smallest(masks)
    found = marks(masks, labels, [2, 0, 3, 1], geometry)
    assert [mark.number for mark in found] == [1, 2, 3, 4]
    for mark, index in zip(found[:3], [2, 0, 3], strict=True):
        assert labels[int(mark.y / 10), int(mark.x / 20)] == index
    assert masks[1, int(found[3].y / 10), int(found[3].x / 20)]
    assert len({(mark.x, mark.y) for mark in found}) == 4


@pytest.mark.parametrize(("ground", "line"), [(255, 150), (40, 250)])
def test_outlines_are_to_be_seen_on_pale_and_on_dark_ground(ground: int, line: int) -> None:
    labels = torch.zeros(8, 8, dtype=torch.int64)
    labels[:, 4:] = 1
    geometry = Geometry((8, 8), (8, 8), (0, 0, 8, 8))
    picture = coloured(Image.new("RGB", (8, 8), (ground,) * 3), labels, torch.zeros(2), geometry)
    pixels = np.asarray(picture)[:, :, 0].astype(int)
    assert (pixels[:, 3] == line).all()
    assert np.abs(pixels[:, 3] - pixels[:, 2]).min() > 100


def test_edges_and_rims() -> None:
    labels = np.zeros((6, 6), dtype=np.int64)
    labels[:, 3:] = 1
    assert edges(labels).nonzero()[1].tolist() == [2] * 6
    square = np.ones((5, 5), dtype=bool)
    assert (~rim(square)).sum() == 9 and (~rim(square, 2)).sum() == 1
    assert rim(np.zeros((0, 0), dtype=bool)).size == 0


def detections(count: int, height: int = 60, width: int = 80) -> Detections:
    masks = [np.ones((1 + row % 9, 1 + row % 7), dtype=bool) for row in range(count)]
    cut_outs = tuple(
        CroppedMask(mask, (row * 3 % (height - 9), row * 5 % (width - 7))) for row, mask in enumerate(masks)
    )
    scores = torch.linspace(0.99, 0.01, count)
    return Detections(
        torch.zeros(count, 4), scores, torch.zeros(count, dtype=torch.int64), cut_outs, (height, width), scores
    )


@pytest.mark.parametrize("count", [0, 1, 300])
def test_instances_are_listed_with_their_scores(count: int) -> None:
    picture = drawn(noise_photo(60, 80), detections(count), ["ñ猫" * 60], "model")
    rows = picture.info["Description"].splitlines()[1:]
    assert picture.info["Title"] == f"model: {count} instance{'s' if count != 1 else ''}"
    assert len(rows) == min(count, LISTED) + (count > LISTED)
    if count:
        assert rows[0].startswith("1  ñ U+732B") and rows[0].endswith("0.99")
    if count > LISTED:
        assert rows[-1] == "280 more  ≤ 0.92"
    plain = drawn(noise_photo(60, 80), detections(count), ["x"], annotated=False)
    assert plain.size == (80, 60) and (count > 0 or plain.tobytes() == noise_photo(60, 80).tobytes())


def test_the_options_of_a_picture() -> None:
    assert picture_options({}) == PictureOptions(annotated=True, sigma=None)
    assert picture_options({"picture": "plain", "picture_sigma": 0}) == PictureOptions(annotated=False, sigma=0)
    wrong: list[dict[str, Any]] = [
        {"picture": "bare"},
        {"picture": 1},
        {"picture_sigma": -1},
        {"picture_sigma": True},
        {"picture_sigma": 0.6},
    ]
    wrong += [{"picture_sigma": float("nan")}, {"picture_sigma": 0.1, "segments": "slic"}]
    for options in wrong:
        with pytest.raises(RequestError) as refusal:
            picture_options(options)
        assert refusal.value.status == 400 and refusal.value.field in options
