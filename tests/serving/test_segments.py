"""From a photo to explained segments over real HTTP: the demonstration segmenters, alone and joined to a classifier."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from pycocotools import mask as run_length

from imagexplain.cli.prepare_input import mask_input
from imagexplain.limits import Limits
from imagexplain.vision.decode import decode
from tests.conftest import Served
from tests.pictures import panel
from tests.serving.over_http import post, segmenter_scene, worker_pids
from tests.tensors import unpacked
from tests.wire.photos import encoded, png
from training.scenes import CLASSES

SEGMENTERS = ("tensormask", "swin")


def turned() -> Image.Exif:
    """What a camera that was held on its side writes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def found(served: Served, model: str, photo: bytes, **headers: str) -> list[dict[str, Any]]:
    answer = post(served, f"predictions/{model}", photo, Accept="application/json", **headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["detections"]


def decoded(row: dict[str, Any]) -> np.ndarray:
    return run_length.decode({**row["segmentation"], "counts": row["segmentation"]["counts"].encode()}).astype(bool)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("model", SEGMENTERS)
def test_most_objects_are_found(served: Served, model: str) -> None:
    hits = objects = 0
    for index in range(20):
        photo, made = segmenter_scene(index)
        rows = found(served, model, photo, X_Explain_Options="threshold=0.3")
        for instance in made.instances:
            if instance.class_index is not None:
                objects += 1
                hits += any(
                    row["label"] == instance.kind and overlap(decoded(row), instance.mask) >= 0.5 for row in rows
                )
    assert objects > 40 and hits / objects >= 0.5


@pytest.mark.parametrize("model", SEGMENTERS)
def test_the_original_clients_of_the_mask_servers(served: Served, model: str) -> None:
    photo, made = segmenter_scene(0)
    body = mask_input(decode(photo, Limits()), "chw" if model == "tensormask" else "hwc")
    answer = post(served, f"predictions/{model}", body, Content_Type="application/json; charset=utf-8")
    result = unpacked(answer.content)
    assert set(result) == {"pred_masks"} and result["pred_masks"].shape[1:] == made.image.shape[:2]
    assert len(result["pred_masks"]) == len(found(served, model, photo))


@pytest.mark.parametrize("classifier", ["bit", "lanet"])
@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_one_request_from_photo_to_explained_segments(served: Served, classifier: str, segmenter: str) -> None:
    photo, _ = segmenter_scene(1)
    rows = found(served, segmenter, photo)
    assert rows
    options = f"segments={segmenter}"
    answer = post(
        served, f"explanations/{classifier}", photo, Accept="application/json", X_Explain_Options=options
    ).json()
    segments = [row for row in answer["groups"] if row["kind"] == "segment"]
    assert answer["segments"] == segmenter and 0 < len(segments) <= len(rows)
    assert {row["label"].split()[0] for row in segments} <= set(CLASSES)
    parts = sum(part["attribution"] for part in answer["refinement"])
    assert parts + answer["residual"] == pytest.approx(answer["score"] - answer["baseline_score"], abs=1e-4)
    sent = json.dumps({"image": base64.b64encode(photo).decode(), "masks": rows}).encode()
    by_hand = post(served, f"explanations/{classifier}", sent, Accept="application/json").json()
    assert [row["attribution"] for row in answer["groups"]] == pytest.approx(
        [row["attribution"] for row in by_hand["groups"]], abs=1e-5
    )


@pytest.mark.parametrize("model", SEGMENTERS)
def test_one_detection_is_explained(served: Served, model: str) -> None:
    photo, _ = segmenter_scene(1)
    options = f"segments={model}&steps=20&detection=0"
    answer = post(served, f"explanations/{model}", photo, Accept="application/json", X_Explain_Options=options)
    result, best = answer.json(), found(served, model, photo)[0]
    assert result["target_label"] == best["label"] and result["box"] == pytest.approx(best["box"], abs=1e-3)
    picture = post(served, f"explanations/{model}", photo, Accept="image/png", X_Explain_Options="steps=4")
    assert panel(picture.content).size == (128, 128)


GREY = Image.linear_gradient("L").resize((40, 30))
PHOTOS = {
    "one pixel": (png(1, 1), (1, 1)),
    "very wide": (png(2, 600), (2, 600)),
    "very high": (png(600, 2), (600, 2)),
    "grey": (encoded(GREY), (30, 40)),
    "grey, 16 bits": (encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)), (30, 40)),
    "alpha": (encoded(Image.merge("RGBA", [GREY] * 4)), (30, 40)),
    "palette": (encoded(GREY.convert("P")), (30, 40)),
    "upright by EXIF": (encoded(GREY, "JPEG", exif=turned()), (40, 30)),
    "a phone's": (encoded(Image.new("RGB", (4032, 3024), (90, 20, 60)), "JPEG"), (3024, 4032)),
}


@pytest.mark.parametrize("model", SEGMENTERS)
def test_photos_of_every_kind(served: Served, model: str) -> None:
    """A right answer or an error that says why, from the worker that was there before."""
    pids = worker_pids(served, model)
    ask = {"Accept": "application/json", "X_Explain_Options": "threshold=0.000001"}
    for kind, (photo, size) in PHOTOS.items():
        answer = post(served, f"predictions/{model}", photo, **ask)
        if kind.startswith("very") and answer.status_code == 422:
            assert "too narrow" in answer.json()["message"]
            continue
        assert answer.status_code == 200, (kind, answer.text)
        for row in answer.json()["detections"]:
            assert row["segmentation"]["size"] == list(size), kind
            assert row["box"][2] <= size[1] and row["box"][3] <= size[0]
    for kind in ("one pixel", "grey", "upright by EXIF"):
        photo, size = PHOTOS[kind]
        ask = {"Accept": "image/png", "X_Explain_Options": "threshold=0.000001&steps=2"}
        answer = post(served, f"explanations/{model}", photo, **ask)
        if answer.status_code == 422:
            assert "nothing was found" in answer.json()["message"]
        else:
            assert panel(answer.content).size == size[::-1], answer.text
    huge = encoded(Image.new("L", (8200, 6200)), "JPEG")
    for photo, status in ((huge, 413), (PHOTOS["grey"][0][:60], 400), (b"no photo", 415)):
        answer = post(served, f"predictions/{model}", photo)
        assert answer.status_code == status and answer.json()["message"]
    assert worker_pids(served, model) == pids


def test_a_segmenter_without_a_worker(served: Served) -> None:
    photo, _ = segmenter_scene(1)
    url = f"{served.server.management}/models/tensormask"
    manage = served.server.headers("management")

    def scale(workers: int) -> None:
        sent = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        requests.put(url, params=sent, headers=manage, timeout=120).raise_for_status()

    scale(0)
    try:
        ask = {"Accept": "application/json"}
        refused = post(served, "explanations/bit", photo, X_Explain_Options="segments=tensormask", **ask)
        assert (refused.status_code, refused.json()["field"]) == (503, "segments")
        allowed = "segments=tensormask&fallback=slic&n_segments=9"
        answer = post(served, "explanations/bit", photo, X_Explain_Options=allowed, **ask)
        assert answer.status_code == 200 and answer.json()["segments"] == "slic"
    finally:
        scale(1)
    assert found(served, "tensormask", photo)


def test_names_that_are_no_segmenter(served: Served) -> None:
    photo, _ = segmenter_scene(1)
    for name, words in (
        ("nothing", "a segmenter that is served here"),
        ("lanet", "finds no masks"),
        ("bit", "no masks"),
    ):
        answer = post(served, "explanations/bit", photo, X_Explain_Options=f"segments={name}")
        assert answer.status_code == 422 and words in answer.json()["message"]
