"""Parts of a form that are named like headers: TorchServe hands both over in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from handlers.classifier import ClassifierHandler
from imagexplain.serving.torchserve import raw_request
from tests.conftest import Served
from tests.serving.asking import noise_png
from tests.serving.fake_torchserve import Context
from tests.wire.photos import jpeg

NAMES = (
    "accept",
    "Accept",
    "cache-control",
    "x-explain-options",
    "content-type",
    "authorization",
    "explain",
    "url_path",
)
"""Headers that are read here, or that TorchServe itself adds."""

PART = {"content-type": ""}
"""What TorchServe puts in a header's place for a part of the name, before the headers proper."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["prediction", "explanation"])
def test_a_part_is_no_header(handler: ClassifierHandler, name: str, kind: str) -> None:
    """Predictions ignore it as they ignore any part; for explanations it is an option that nobody knows."""
    sent: dict[str, Any] = {"image": PART, name: PART}
    sent |= {"Content-Type": "multipart/form-data; boundary=x", "explain": str(kind == "explanation")}
    context = Context(headers=[sent])
    (body,) = handler.handle([{"image": bytearray(noise_png(0)), name: bytearray(b"image/png")}], context)
    if kind == "prediction":
        assert context.statuses == {0: 200} and "predictions" in json.loads(body)
    else:
        assert context.statuses == {0: 400} and json.loads(body)["field"] == name
        assert "unknown option" in json.loads(body)["message"]


def test_the_header_is_the_header_whatever_parts_there_are(handler: ClassifierHandler) -> None:
    sent: dict[str, Any] = {"image": PART, "accept": PART, "Accept": "application/x-safetensors", "explain": "False"}
    context = Context(headers=[sent])
    handler.handle([{"image": bytearray(noise_png(0)), "accept": bytearray(b"image/png")}], context)
    assert context.types == {0: "application/x-safetensors"}


def test_a_header_in_two_spellings_is_a_list() -> None:
    sent = {"X-Explain-Options": "steps=5", "x-explain-options": "seed=1", "ACCEPT": "image/png", "Accept": "*/*;q=.1"}
    headers = raw_request({}, 0, Context(headers=[sent])).headers
    assert headers == {"x-explain-options": "steps=5, seed=1", "accept": "image/png, */*;q=.1"}


@pytest.mark.parametrize("name", NAMES)
def test_parts_named_like_headers_over_http(served: Served, name: str) -> None:
    def post(path: str, **headers: str) -> requests.Response:
        session = requests.Session()
        session.headers.clear()
        session.headers.update({**served.server.headers(), **headers})
        files = {"image": ("a.jpg", jpeg(), "image/jpeg"), name: (None, "True")}
        return session.post(f"{served.server.inference}/{path}", files=files, timeout=120)

    ignored = post("predictions/bit", explain="True")  # TorchServe's own word comes after the client's
    assert ignored.status_code == 200 and "predictions" in ignored.json()
    refused = post("explanations/bit", Accept="application/json")
    assert (refused.status_code, refused.json()["field"]) == (400, name), refused.text
    drawn = requests.post(
        f"{served.server.inference}/explanations/bit",
        files={"image": ("a.jpg", jpeg(), "image/jpeg"), "steps": (None, "3")},
        headers={**served.server.headers(), "accept": "image/png"},
        timeout=120,
    )
    assert drawn.headers["Content-Type"] == "image/png"
    assert Path(served.server.run).is_dir()
