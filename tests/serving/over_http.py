"""Requests to the demonstration models as they are served, and scenes to send."""

from __future__ import annotations

import requests
from PIL import Image

from tests.conftest import Served
from tests.wire.photos import encoded
from training.instances import SETTINGS
from training.scenes import Scene, scene
from training.train_classifier import HELD_OUT_SEED


def post(served: Served, path: str, body: bytes, **headers: str) -> requests.Response:
    """The answer to a body; in the names of headers ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{served.server.inference}/{path}"
    return requests.post(url, data=body, headers={**served.server.headers(), **named}, timeout=120)


def worker_pids(served: Served, model: str) -> list[int]:
    """The processes of a model's workers."""
    answer = requests.get(
        f"{served.server.management}/models/{model}", headers=served.server.headers("management"), timeout=10
    )
    return [worker["pid"] for worker in answer.json()[0]["workers"]]


def segmenter_scene(index: int) -> tuple[bytes, Scene]:
    """A held-out scene of the segmenters, as a file and as it was drawn."""
    made = scene(HELD_OUT_SEED, index, SETTINGS)
    return encoded(Image.fromarray(made.image)), made
