"""Limits that a handler answers with a status: XRAI's pictures, a segmenter's photos, and what stands in for it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from handlers.classifier import ClassifierHandler
from imagexplain.api.request import Request, parse
from imagexplain.archive.spec import SegmenterFile, load
from imagexplain.attribution.methods import xrai as regions
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.ops.server import ROOT
from imagexplain.serving.remote_segments import fetch_segments
from imagexplain.vision.decode import decode
from tests.serving.asking import explain_one
from tests.serving.segmenter_server import segmenter_server
from tests.wire.photos import encoded

SEGMENTERS = sorted(
    path.name for path in (ROOT / "archive_specs").glob("*.yaml") if isinstance(load(path), SegmenterFile)
)


@pytest.mark.parametrize(
    ("name", "most", "words"),
    [
        ("MOST_PIXELS", 32 * 32 - 1, "wanted at most 1023 pixels each, or segments, got 32 × 32"),
        ("MOST_BYTES", 32 * 32 - 1, "wanted segments of 1023 pixels in all at most, got "),
    ],
)
def test_xrai_on_an_input_too_large_is_no_error_of_the_server(
    resnet: ClassifierHandler, monkeypatch: pytest.MonkeyPatch, name: str, most: int, words: str
) -> None:
    monkeypatch.setattr(regions, name, most)
    status, answer = explain_one(resnet, "method=xrai&steps=4")
    assert (status, answer["field"]) == (422, "method") and words in answer["message"]
    status, answer = explain_one(resnet, "method=xrai&steps=4&segments=grid&rows=2&columns=2")
    assert status == 200 and len(answer["groups"]) == 5  # segments of its own need no others


def test_the_segmenters_are_there() -> None:
    assert len(SEGMENTERS) >= 4


@pytest.mark.parametrize("size", [(3024, 4032), (4032, 3024), (6048, 8064)])
def test_a_phones_photo_is_within_every_segmenters_limits(size: tuple[int, int]) -> None:
    """What the header says is all that the limits ask; and it is shrunk to what the model was made for."""
    tightest = Limits()
    for file in SEGMENTERS:
        spec = load(ROOT / "archive_specs" / file)
        assert isinstance(spec, SegmenterFile)
        assert spec.limits.max_pixels >= size[0] * size[1], file
        if spec.resize is not None:
            height, width = spec.resize.size(size)
            assert max(height, width) <= spec.resize.longer and min(height, width) <= spec.resize.shorter
        tightest = replace(tightest, max_pixels=min(tightest.max_pixels, spec.limits.max_pixels))
    photo = encoded(Image.new("L", size[::-1]), "JPEG")
    assert decode(photo, tightest).size == size


def test_a_small_photo_is_not_enlarged_where_the_spec_says_so() -> None:
    """By 800 / 3024 the longer side would be 1,067; a panorama is bound by its longer side."""
    spec = load(ROOT / "archive_specs" / "tensormask_full.yaml")
    assert isinstance(spec, SegmenterFile) and spec.resize is not None
    sizes = {(3024, 4032): (800, 1067), (1000, 8000): (167, 1333), (300, 500): (300, 500), (800, 1067): (800, 1067)}
    assert {size: spec.resize.size(size) for size in sizes} == sizes
    assert spec.resize.model_copy(update={"enlarge": True}).size((300, 500)) == (800, 1333)


# A segmenter that refuses the photo


def asking(fallback: str = "") -> Request:
    options = f"segments=swin{fallback}"
    return parse({"body": encoded(Image.new("RGB", (6, 4)))}, {"x-explain-options": options}, kind="explanation")


TOO_LARGE = {"code": 413, "field": "image", "message": "wanted at most 12 pixels, got 6 × 4"}
TOO_NARROW = {"code": 422, "field": "image", "message": "the photo is too narrow"}
OTHER = {"code": 422, "field": "threshold", "message": "wanted another"}


@pytest.mark.usefixtures("secret_key")
@pytest.mark.parametrize("refusal", [TOO_LARGE, TOO_NARROW], ids=["too large", "too narrow"])
def test_a_fallback_stands_in_where_the_segmenter_refuses_the_photo(
    monkeypatch: pytest.MonkeyPatch, refusal: dict[str, Any]
) -> None:
    with segmenter_server(int(refusal["code"]), json.dumps(refusal).encode()) as (address, asked):
        monkeypatch.setenv("TS_INFERENCE_ADDRESS", address)
        ends = time.monotonic() + 5
        answered, found = fetch_segments(asking("&fallback=slic&n_segments=7"), "bit", Limits(), ends)
        assert found is None and answered.segments is not None
        assert (answered.segments.name, answered.segments.n_segments) == ("slic", 7)
        with pytest.raises(RequestError) as caught:  # without one it says what the segmenter said
            fetch_segments(asking(), "bit", Limits(), ends)
    assert len(asked) == 2
    assert (caught.value.status, caught.value.field) == (422, "segments")
    assert refusal["message"] in caught.value.message


@pytest.mark.usefixtures("secret_key")
def test_a_fallback_is_not_for_what_the_asker_can_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    with segmenter_server(422, json.dumps(OTHER).encode()) as (address, _):
        monkeypatch.setenv("TS_INFERENCE_ADDRESS", address)
        with pytest.raises(RequestError) as caught:
            fetch_segments(asking("&fallback=slic"), "bit", Limits(), time.monotonic() + 5)
    assert (caught.value.status, caught.value.field) == (422, "segments") and "wanted another" in caught.value.message
