"""Ways to join two models in one request: a classifier's explanation by the segments that a segmenter finds.

    python -m benchmarks.bench_segments [--segmenter tensormask] [--rounds 20] [--out benchmarks/results_segments.json]

The ways, each from the same photo to the group table, nothing remembered:

    neighbour   the classifier's worker asks the segmenter's endpoint over the loopback (what is served).
    in_process  the segmenter lives in the classifier's worker: the same calls without HTTP, JSON and run lengths.
    client      the client asks both, one after the other, and sends the masks itself.

Memory is what one more worker needs: the resident set of a classifier's worker, and how much larger a process becomes
that loads the segmenter as well.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil
import torch
from PIL import Image

from benchmarks.bench_serving import server
from evaluation.machine import machine
from imagexplain.archive import segmenter_backends as engines
from imagexplain.archive.build import build_all
from imagexplain.archive.spec import SegmenterSpec
from imagexplain.client import Client
from imagexplain.client.loopback import urlopen
from imagexplain.limits import Limits
from imagexplain.ops.server import ROOT, Server
from imagexplain.vision.decode import decode
from imagexplain.vision.masks import of_cut_outs, to_model
from imagexplain.vision.preprocess import preprocess
from imagexplain.vision.preprocess_settings import Preprocess
from training.scenes import SceneSettings, scene

SIZE = (480, 640)


def photo() -> bytes:
    """A JPEG of a scene with several objects."""
    file = io.BytesIO()
    Image.fromarray(scene(3, 0, SceneSettings(size=SIZE, objects=(3, 4))).image).save(file, "JPEG", quality=90)
    return file.getvalue()


def over_http(running: Server, segmenter: str, classifier: str, body: bytes) -> dict[str, Callable[[], Any]]:
    """The ways over HTTP, as a client calls them."""
    client = Client(running.inference, headers={**running.headers(), "Cache-Control": "no-cache"})

    def explained(**options: str) -> Any:
        return client.post(
            f"explanations/{classifier}", body, "image/jpeg", accept="application/json", options=options
        ).json()

    def found() -> Any:
        return client.post(f"predictions/{segmenter}", body, "image/jpeg", accept="application/json").json()

    def by_client() -> Any:
        fields = {"image": base64.b64encode(body).decode(), "masks": found()["detections"]}
        return client.post(
            f"explanations/{classifier}", json.dumps(fields).encode(), "application/json", accept="application/json"
        ).json()

    return {
        "neighbour": lambda: explained(segments=segmenter),
        "client": by_client,
        "segmenter alone": found,
        "classifier alone": explained,
    }


def in_process(segmenter: str, body: bytes) -> tuple[Callable[[], Any], float]:
    """The segmenter as part of this process, and the bytes by which it grew."""
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        build_all([ROOT / "archive_specs" / f"{segmenter}.yaml"], store, environ={})
        with zipfile.ZipFile(store / f"{segmenter}.mar") as archive:
            archive.extractall(store / "model")
        spec = SegmenterSpec.read(store / "model")
        engine = engines.load(spec, store / "model", torch.device("cpu"))
    settings = Preprocess((32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def found() -> Any:
        upright = decode(body, Limits())
        seen = engine.predict(engine.preprocess(upright), spec.threshold)
        labels = [spec.labels[label] for label in seen.labels.tolist()]
        return to_model(of_cut_outs(seen.cut_outs, seen.size, labels), preprocess(upright, settings).geometry)

    found()
    return found, float(psutil.Process().memory_info().rss - before)


def resident(running: Server, model: str) -> list[int]:
    """Megabytes of each worker of a model."""
    address = f"{running.management}/models/{model}"
    with urlopen(Request(address, headers=running.headers("management")), timeout=10) as answer:
        (about,) = json.load(answer)
    return [round(psutil.Process(worker["pid"]).memory_info().rss / 1e6) for worker in about["workers"]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenter", default="tensormask")
    parser.add_argument("--classifier", default="lanet")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    body = photo()
    segment, grown = in_process(given.segmenter, body)
    with server() as running:
        ways = over_http(running, given.segmenter, given.classifier, body) | {"segments in process": segment}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(given.rounds + 2):
            for way, work in ways.items():
                started = time.perf_counter()
                work()
                if number > 1:
                    seconds[way].append(time.perf_counter() - started)
        workers, segmenters = (resident(running, model) for model in (given.classifier, given.segmenter))
    rounds = zip(*(seconds[way] for way in ("neighbour", "classifier alone", "segments in process")), strict=True)
    result = {
        "machine": machine(),
        "segmenter": given.segmenter,
        "classifier": given.classifier,
        "photo": f"{SIZE[1]}×{SIZE[0]}",
        "milliseconds": {way: round(1000 * statistics.median(values), 1) for way, values in seconds.items()},
        "neighbour beyond in_process, milliseconds": round(
            1000 * statistics.median(joined - alone - inside for joined, alone, inside in rounds), 1
        ),
        "megabytes of a segmenter in a process": round(grown / 1e6),
        "megabytes of the classifier's workers": workers,
        "megabytes of the segmenter's workers": segmenters,
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
