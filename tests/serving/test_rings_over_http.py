"""Models that ask one another on a real server: everyone is answered or refused, and nobody waits for a time limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import Served
from tests.serving.over_http import post, segmenter_scene


def ask_joined(served: Served, model: str, options: str, photo: bytes) -> requests.Response:
    headers = {"Accept": "application/json", "X_Explain_Options": f"{options}&steps=4", "Cache_Control": "no-cache"}
    return post(served, f"explanations/{model}", photo, **headers)


@pytest.mark.parametrize("fallback", ["", "&fallback=slic"])
def test_segmenters_that_join_each_other(served: Served, fallback: str) -> None:
    pairs = [("swin", "tensormask"), ("tensormask", "swin")] * 3
    photos = [segmenter_scene(index)[0] for index in (0, 1, 2)]
    with ThreadPoolExecutor(len(pairs) + 2) as clients:
        asked = [
            clients.submit(ask_joined, served, own, f"segments={other}{fallback}", photos[place // 2])
            for place, (own, other) in enumerate(pairs)
        ]
        others = [clients.submit(post, served, f"predictions/{model}", photos[0]) for model in ("swin", "tensormask")]
        answers = [request.result() for request in asked]
        assert [request.result().status_code for request in others] == [200, 200]
    for answer in answers:
        if answer.status_code == 503 and not fallback:
            assert answer.json()["field"] == "segments" and "ask" in answer.json()["message"]
            assert "in time" not in answer.json()["message"]
        else:
            assert answer.status_code == 200, answer.text
    for own, other in pairs[:2]:
        alone = ask_joined(served, own, f"segments={other}", photos[0])
        assert alone.status_code == 200 and alone.json()["segments"] == other


def test_classifiers_that_name_each_other(served: Served) -> None:
    photo, _ = segmenter_scene(0)
    ring = [
        ("lanet", "resnet"),
        ("resnet", "lanet"),
        ("bit", "bit"),
        ("swin", "bit"),
        ("bit", "Swin"),
        ("bit", "swin_"),
    ]
    with ThreadPoolExecutor(len(ring)) as clients:
        asked = [
            clients.submit(ask_joined, served, own, f"segments={other}&fallback=slic", photo) for own, other in ring
        ]
        answers = [request.result() for request in asked]
    assert [answer.status_code for answer in answers] == [422] * len(ring)
    assert {answer.json()["field"] for answer in answers} == {"segments"}
    version = ask_joined(served, "bit", "segments=swin/1.0", photo)
    assert version.status_code == 400 and "name of a segmenter" in version.json()["message"]
