from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagexplain.api.request import parse
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.ops.server import ROOT
from imagexplain.serving.remote_segments import fetch_segments, segments_of
from imagexplain.vision import rle
from imagexplain.vision.decode import Photo, decode
from tests.serving.segmenter_server import segmenter_server
from tests.wire.photos import encoded

pytestmark = pytest.mark.usefixtures("secret_key")

LIMITS = Limits(max_groups=3)


def detection(label: str, rows: int) -> dict[str, Any]:
    mask = np.zeros((4, 6), dtype=np.bool_)
    mask[:rows] = True
    return {"label": label, "score": 0.5, "segmentation": rle.write(mask)}


@pytest.fixture
def photo() -> Photo:
    return decode(encoded(Image.new("RGB", (6, 4), "red")), Limits())


def fetched_segments(
    photo: Photo, address: str, monkeypatch: pytest.MonkeyPatch, left: float = 5.0, **options: Any
) -> Any:
    monkeypatch.setenv("TS_INFERENCE_ADDRESS", address)
    return segments_of("swin", photo, LIMITS, **{"threshold": None, "ends": time.monotonic() + left} | options)


def test_the_file_goes_out_as_it_came_and_masks_come_back(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"detections": [detection("cat", 1), detection("dog", 2)]}).encode()
    with segmenter_server(200, body) as (address, asked):
        found = fetched_segments(photo, address, monkeypatch, threshold=0.25)
    ((path, headers, sent),) = asked
    assert path == "/predictions/swin" and sent == photo.encoded
    assert headers["Authorization"] == "Bearer secret" and headers["X-Explain-Options"] == "threshold=0.25"
    assert found.labels == ("cat", "dog")
    assert [int(make().mask.sum()) for make in found.cut_outs] == [6, 12]


def test_a_photo_from_a_list_goes_out_as_png(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    with segmenter_server(200, b'{"detections": []}') as (address, asked):
        assert fetched_segments(Photo(photo.image, "list", "RGB"), address, monkeypatch).labels == ()
    assert decode(asked[0][2], Limits()).image.tobytes() == photo.image.tobytes()


def test_no_more_segments_than_the_limit(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"detections": [detection(f"star {n}", 1) for n in range(9)]}).encode()
    with segmenter_server(200, body) as (address, _):
        assert len(fetched_segments(photo, address, monkeypatch).labels) == 3


@pytest.mark.parametrize(
    ("status", "body", "wanted", "words"),
    [
        (404, b"{}", 422, "a segmenter that is served here, got 'swin'"),
        (200, b'{"predictions": []}', 422, "which finds no masks"),
        (503, b'{"message": "busy"}', 503, "answered 503: 'busy'"),
        (413, b'{"message": "too many pixels"}', 422, "too many pixels"),
        (500, b"<html>", 503, "answered 500"),
        (503, b'{"message": "\xff"}', 503, "answered 503"),
        (200, b'{"detections": ["\xff"]}', 422, "which finds no masks"),
        (200, b"[" * 100_000, 422, "which finds no masks"),
        (200, b"not json", 422, "which finds no masks"),
    ],
)
def test_refusals(
    photo: Photo, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, wanted: int, words: str
) -> None:
    with segmenter_server(status, body) as (address, _), pytest.raises(RequestError) as caught:
        fetched_segments(photo, address, monkeypatch)
    assert caught.value.status == wanted and caught.value.field == "segments" and words in caught.value.message


def test_a_segmenter_that_is_slow_or_gone(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    with segmenter_server(200, b"{}", seconds=1) as (address, _), pytest.raises(RequestError) as caught:
        fetched_segments(photo, address, monkeypatch, left=0.2)
    assert caught.value.status == 503 and "did not answer in time" in caught.value.message
    with pytest.raises(RequestError, match="cannot be reached") as caught:
        fetched_segments(photo, address, monkeypatch)
    assert caught.value.status == 503
    with pytest.raises(RequestError, match="no time is left") as caught:
        fetched_segments(photo, address, monkeypatch, left=-1)
    assert caught.value.status == 503


def test_a_fallback_takes_its_place_only_where_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"x-explain-options": "segments=swin&fallback=grid&rows=2&columns=1"}
    request = parse({"body": encoded(Image.new("RGB", (6, 4)))}, headers, kind="explanation")
    monkeypatch.setenv("TS_INFERENCE_ADDRESS", "http://127.0.0.1:9")
    answered, found = fetch_segments(request, "bit", LIMITS, time.monotonic() + 5)
    assert found is None and answered.segments is not None
    assert (answered.segments.name, answered.segments.rows, answered.segments.columns) == ("grid", 2, 1)
    with segmenter_server(404, b"{}") as (address, _):
        monkeypatch.setenv("TS_INFERENCE_ADDRESS", address)
        with pytest.raises(RequestError, match="served here"):
            fetch_segments(request, "bit", LIMITS, time.monotonic() + 5)
    with pytest.raises(RequestError, match="got 'swin', which finds no masks"):
        fetch_segments(request, "swin", LIMITS, time.monotonic() + 5)  # which would wait for itself


def test_the_key_stands_where_the_server_was_started(tmp_path: Path) -> None:
    (tmp_path / "key_file.json").write_text('{"inference": {"key": "from the file"}}')
    child = "from imagexplain.serving.remote_segments import _key; print(_key())"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], cwd={str(ROOT)!r}, check=True)"
    told = subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stdout.strip() == "from the file", told.stderr
    (tmp_path / "key_file.json").unlink()
    told = subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "503 segments: this server's inference key cannot be read" in told.stderr
