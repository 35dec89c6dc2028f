"""Groups of a request: no more come out than the limits allow, and none are made past the deadline."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from imagexplain.api.options import Segments
from imagexplain.api.request import Request, parse
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.serving import prepared_request as sample
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.prepared_request import PreparedRequest, prepare_request
from imagexplain.vision import superpixels
from imagexplain.vision.preprocess import preprocess
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.rectangles import Rectangles
from imagexplain.vision.rle import Runs, write
from imagexplain.vision.superpixels import SlicSettings, one_hot, slic
from tests.wire.photos import encoded, noise_photo

SIDE = 32
PREPROCESS = Preprocess((SIDE, SIDE), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def noise_request(options: str = "", masks: list[np.ndarray] | None = None, side: int = SIDE) -> Request:
    """A noisy photo, with masks over it."""
    row: dict[str, Any] = {"image": encoded(noise_photo(side, side))}
    if masks is not None:
        row["masks"] = json.dumps([write(mask) for mask in masks]).encode()
    return parse(row, {"x-explain-options": options}, kind="explanation")


def prepared(request: Request, limits: Limits, deadline: Deadline | None = None) -> PreparedRequest:
    return prepare_request(request, preprocess(request.photo, PREPROCESS), None, limits, deadline)


def stripes(count: int, side: int = SIDE) -> list[np.ndarray]:
    """So many different masks: mask n has the columns from n on."""
    return [np.broadcast_to(np.arange(side) >= number, (side, side)) for number in range(1, count + 1)]


class TickingClock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def undone(*_: object, **__: object) -> Any:
    raise AssertionError("this work was to be refused first")


@pytest.fixture
def nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((sample, "to_model"), (sample, "slic"), (sample, "grid"), (sample, "family")):
        monkeypatch.setattr(module, name, undone)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Superpixels take 3 s of a picture of this size, and each group half a second."""
    monkeypatch.setattr(sample, "SECONDS_PER_SLIC_PIXEL", 3 / SIDE**2)
    monkeypatch.setattr(sample, "SECONDS_PER_GROUP_PIXEL", 0.5 / SIDE**2)


def test_masks_end_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight, three are begun within three seconds; the fourth is not."""
    begun: list[int] = []
    request = noise_request(masks=stripes(8))
    rectangles = Runs.rectangles

    def noted(runs: Runs) -> Rectangles:
        begun.append(1)
        return rectangles(runs)

    monkeypatch.setattr(Runs, "rectangles", noted)
    with pytest.raises(RequestError, match="wanted an answer within 3 s, masks were left") as caught:
        prepared(request, Limits(), Deadline(3, 3, 0, clock=TickingClock()))
    assert (caught.value.status, caught.value.field, len(begun)) == (503, "masks", 3)
    assert prepared(request, Limits(), Deadline(8, 8, 0, clock=TickingClock())).groups is not None


@pytest.mark.usefixtures("nothing_is_done")
def test_masks_that_cannot_be_there_in_time_are_refused_before_the_first() -> None:
    seconds = sample.SECONDS_PER_GROUP_PIXEL * SIDE**2 * 7.5  # seven masks and a half
    with pytest.raises(RequestError, match="at most 7 groups on this model's input of 32 × 32, got 8") as caught:
        prepared(noise_request(masks=stripes(8)), Limits(), Deadline.starting_now(seconds, 0))
    assert (caught.value.status, caught.value.field) == (413, "masks")


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize(
    ("options", "sent", "seconds", "field"),
    [
        ("segments=slic&n_segments=5", 0, 3 + 5 * 0.5, "segments"),
        ("segments=grid&rows=4&columns=5", 0, 20 * 0.5, "segments"),
        ("", 20, 20 * 0.5, "masks"),
        ("segments=slic&n_segments=5", 20, 3 + 25 * 0.5, "masks"),
    ],
)
def test_groups_that_cannot_be_there_in_the_time_that_is_left(
    options: str, sent: int, seconds: float, field: str, slow: None
) -> None:
    """An empty batch had room for them; of this one, too little is left."""
    request = noise_request(options, stripes(sent) if sent else None)
    left = Deadline(0.99 * seconds, 1000, 0, clock=lambda: 0.0)
    with pytest.raises(RequestError, match="the batch is full") as caught:
        prepared(request, Limits(), left)
    assert (caught.value.status, caught.value.field) == (503, field)


@pytest.mark.usefixtures("nothing_is_done")
def test_superpixels_of_an_input_that_is_too_large_for_them(slow: None) -> None:
    """Of two, it is the picture that takes the time."""
    with pytest.raises(RequestError, match="wanted work of at most 1 s, got about 4 s") as caught:
        prepared(noise_request("segments=slic&n_segments=2"), Limits(), Deadline.starting_now(1.2, 0))
    assert (caught.value.status, caught.value.field) == (413, "segments")


def test_groups_that_the_time_left_allows(slow: None) -> None:
    request = noise_request("segments=slic&n_segments=5", stripes(20))
    assert prepared(request, Limits(), Deadline(3 + 25 * 0.5, 1000, 0, clock=lambda: 0.0)).groups is not None


@pytest.mark.parametrize("side", [8, 23, 32, 56])
@pytest.mark.parametrize("kind", ["noise", "plain", "stripes"])
def test_superpixels_are_never_more_than_allowed(side: int, kind: str) -> None:
    """Their seeds stand on whole pixels: 1,024 of a 32 × 32 picture where 500 are asked for."""
    rgb = torch.rand(3, side, side, generator=torch.Generator().manual_seed(side))
    if kind != "noise":
        rgb = torch.full_like(rgb, 0.5)
    if kind == "stripes":
        rgb[:, :, ::2] = 0
    for asked_for in (1, 2, 7, 60, 500, 2000):
        for most in {1, 3, asked_for, side * side // 3}:
            labels = slic(rgb, SlicSettings(asked_for), most)
            masks = one_hot(labels)
            assert 1 <= len(masks) <= most and bool(masks.flatten(1).any(1).all()) and bool((masks.sum(0) == 1).all())


def test_superpixels_within_the_limit_are_those_that_were_asked_for() -> None:
    rgb = torch.full((3, 40, 40), 0.5)
    free = slic(rgb, SlicSettings(30))
    count = int(free.max()) + 1
    assert count > 20
    assert torch.equal(slic(rgb, SlicSettings(30), count), free)
    assert int(slic(rgb, SlicSettings(30), count - 1).max()) + 1 < count


@pytest.mark.parametrize(
    ("options", "sent", "most"),
    [
        ("segments=slic&n_segments=500", 0, 500),
        ("segments=slic&n_segments=290", 0, 300),
        ("segments=slic&n_segments=290", 10, 300),
        ("segments=slic&n_segments=20", 3, 23),
        ("segments=grid&rows=5&columns=4", 3, 23),
    ],
)
def test_no_more_groups_than_the_limit(options: str, sent: int, most: int) -> None:
    groups = prepared(noise_request(options, stripes(sent) if sent else None), Limits(max_groups=most)).groups
    assert groups is not None
    kinds = groups.family.kinds
    assert sent < kinds.count("segment") <= most
    assert groups.family.labels[:sent] == tuple(f"segment {number}" for number in range(1, sent + 1))


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize(
    ("options", "sent", "limits", "field", "words"),
    [
        ("segments=slic&n_segments=21", 0, {"max_groups": 20}, "segments", "at most 20 groups"),
        ("segments=slic&n_segments=18", 3, {"max_groups": 20}, "masks", "got 18 segments beside 3 masks"),
        ("segments=grid&rows=6&columns=4", 0, {"max_groups": 20}, "segments", "at most 20 groups"),
        ("segments=grid&rows=6&columns=3", 3, {"max_groups": 20}, "masks", "got 18 segments beside 3 masks"),
        ("segments=slic&n_segments=9", 0, {"max_group_pixels": 8 * SIDE**2}, "segments", "at most 8 groups"),
        ("", 9, {"max_group_pixels": 8 * SIDE**2 + 1}, "masks", "at most 8 groups"),
    ],
)
def test_too_many_groups_are_refused_before_any_is_made(
    options: str, sent: int, limits: dict[str, int], field: str, words: str
) -> None:
    request = noise_request(options, stripes(sent) if sent else None)
    with pytest.raises(RequestError) as caught:
        prepared(request, replace(Limits(), **limits))
    assert (caught.value.status, caught.value.field) == (413, field)
    assert words in caught.value.message


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize(
    "segments", ["segments=grid&rows=16&columns=17", "segments=slic&n_segments=272", "n_segments=272"]
)
@pytest.mark.parametrize("method", ["method=gaussian_shap", "combine=gaussian_shap,grad_cam"])
def test_more_segments_than_a_method_takes_are_refused_before_any_is_made(method: str, segments: str) -> None:
    with pytest.raises(RequestError) as caught:
        prepared(noise_request(f"{method}&{segments}"), Limits())
    assert (caught.value.status, caught.value.field) == (413, "segments")
    assert "wanted at most 256: gaussian_shap" in caught.value.message and "got 272" in caught.value.message


def test_a_method_gets_as_many_segments_as_it_takes() -> None:
    for segments, least in (("segments=grid&rows=16&columns=16", 256), ("segments=slic&n_segments=256", 2)):
        groups = prepared(noise_request(f"method=gaussian_shap&{segments}"), Limits()).groups
        assert groups is not None and least <= len(groups.family.parts.members) <= 256
    free = prepared(noise_request("segments=grid&rows=16&columns=17"), Limits()).groups
    assert free is not None and len(free.family.parts.members) == 272


@pytest.mark.parametrize(
    ("options", "sent", "most"),
    [
        ("method=gaussian_shap", 9, 256),
        ("method=lime&samples=20000", 30, 1000),
        ("method=kernel_shap&samples=20000", 30, 1000),
        ("method=shapley_sampling&permutations=1000", 30, None),  # 20,000 are more than the pixels
    ],
)
def test_masks_that_part_the_input_into_more_pieces_than_a_method_takes(
    options: str, sent: int, most: int | None
) -> None:
    """So many masks of noise have nearly as many parts as there are pixels, which are 1,024, or as can be."""
    noise = np.random.default_rng(1).random((sent, SIDE, SIDE)) < 0.5
    request = noise_request(options, list(noise))
    if most is None:
        assert prepared(request, Limits()).groups is not None
        return
    with pytest.raises(RequestError) as caught:
        prepared(request, Limits())
    assert (caught.value.status, caught.value.field) == (413, "masks")
    assert f"at most {most:,} parts" in caught.value.message and "takes no more" in caught.value.message
    of_another = replace(request, masks=None, segments=Segments("segmenter"))
    with pytest.raises(RequestError) as caught:
        prepare_request(of_another, preprocess(request.photo, PREPROCESS), request.masks, Limits())
    assert (caught.value.status, caught.value.field) == (413, "segments")


def test_a_grid_has_no_more_cells_than_the_input_has_pixels() -> None:
    """Asked for as 200 × 1, it is 32 × 1, and 32 are allowed."""
    groups = prepared(noise_request("segments=grid&rows=200&columns=1"), Limits(max_groups=32)).groups
    assert groups is not None and groups.family.kinds.count("segment") == 32


def test_masks_that_part_the_input_into_too_many_pieces() -> None:
    """Eight masks of noise: at most 2⁸ parts, of which all are there; one fewer is allowed."""
    noise = np.random.default_rng(1).random((8, SIDE, SIDE)) < 0.5
    parts = len(np.unique(noise.reshape(8, -1), axis=1).T)
    request = noise_request(masks=list(noise))
    assert prepared(request, Limits(max_parts=parts)).groups is not None
    with pytest.raises(RequestError) as caught:
        prepared(request, Limits(max_parts=parts - 1))
    assert (caught.value.status, caught.value.field) == (413, "masks")
    assert f"at most {parts - 1:,} parts, got {parts:,}" in caught.value.message


def test_a_single_seed_that_falls_apart_is_one_superpixel(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = np.arange(16).reshape(4, 4)
    monkeypatch.setattr(superpixels, "skimage_slic", lambda *_, **__: pieces)
    assert slic(torch.zeros(3, 4, 4), SlicSettings(5), 3).unique().tolist() == [0]
    with pytest.raises(ValueError, match="most: wanted at least 1, got 0"):
        slic(torch.zeros(3, 4, 4), SlicSettings(5), 0)
