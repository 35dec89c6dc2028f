"""Latency of requests through a real TorchServe, split into decode, attribute, encode and transport.

The demonstration archives are served by a TorchServe of their own on free ports. Decode, attribute and encode are the
handler's own histograms (sum over count); transport is what is left of the client's time: TorchServe's front end,
the socket to the worker, the batch delay, and the client.

    python -m benchmarks.bench_serving [--requests 20] [--out benchmarks/results_serving.json]
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.machine import machine
from imagexplain.archive.build import build_all
from imagexplain.cli.prepare_input import classifier_input
from imagexplain.client import Client
from imagexplain.client.loopback import urlopen
from imagexplain.limits import Limits
from imagexplain.ops.server import ROOT, Server, free_port, start, stop
from imagexplain.vision.decode import decode
from training.scenes import SceneSettings, scene

MODELS = ("bit", "lanet")
STAGES = ("decode", "attribute", "encode")
SIZES = {"640×480": (480, 640), "32×32": (32, 32)}


@contextmanager
def server() -> Iterator[Server]:
    """The demonstration archives, served."""
    with tempfile.TemporaryDirectory() as folder:
        store, run = Path(folder, "store"), Path(folder, "run")
        build_all(sorted((ROOT / "archive_specs").glob("*.yaml")), store, environ={})
        running = start(store=store, run=run, port=free_port())
        try:
            yield running
        finally:
            stop(run)


def bodies() -> dict[str, tuple[bytes, str]]:
    """The request bodies by name, each with its content type."""
    forms: dict[str, tuple[bytes, str]] = {}
    for name, size in SIZES.items():
        file = io.BytesIO()
        Image.fromarray(scene(3, 0, SceneSettings(size=size)).image).save(file, "JPEG", quality=90)
        forms[f"JPEG {name}"] = (file.getvalue(), "image/jpeg")
        forms[f"JSON list {name}"] = (classifier_input(decode(file.getvalue(), Limits()), "star"), "application/json")
    return forms


def stage_seconds(running: Server, model: str, kind: str) -> dict[str, tuple[float, float]]:
    """(sum, count) of each stage's histogram."""
    with urlopen(running.metrics, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for stage in STAGES:
        pattern = rf'^explain_{stage}_seconds_(sum|count){{[^}}]*model_name="{model}",kind="{kind}"[^}}]*}} (\S+)'
        values = dict(re.findall(pattern, text, re.MULTILINE))
        found[stage] = (float(values.get("sum", 0)), float(values.get("count", 0)))
    return found


def measure(running: Server, path: str, body: bytes, media: str, requests: int) -> dict[str, float]:
    """Milliseconds of one kind of request: the client's median, and the mean of each stage."""
    # What a worker remembers of the request before would be measured otherwise.
    client = Client(running.inference, headers={**running.headers(), "Cache-Control": "no-cache"})
    endpoint, model = path.split("/")
    kind = endpoint.removesuffix("s")
    for _ in range(3):
        client.post(path, body, media)
    time.sleep(1)  # TorchServe takes the metrics from the worker's output a moment later
    before = stage_seconds(running, model, kind)
    seconds = [client.post(path, body, media).seconds for _ in range(requests)]
    size = len(client.post(path, body, media).body)
    time.sleep(1)
    after = stage_seconds(running, model, kind)
    row = {"total": 1e3 * statistics.mean(seconds), "median": 1e3 * statistics.median(seconds)}
    for stage in STAGES:
        count = after[stage][1] - before[stage][1]
        row[stage] = 1e3 * (after[stage][0] - before[stage][0]) / count if count else 0.0
    row["transport"] = row["total"] - sum(row[stage] for stage in STAGES)
    return row | {"request_kB": len(body) / 1e3, "answer_kB": size / 1e3}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "requests": options.requests, "milliseconds": {}}
    columns = ("median", "total", *STAGES, "transport", "request_kB", "answer_kB")
    with server() as running:
        print(f"{'request':46}" + "".join(f"{column:>12}" for column in columns))
        for model in MODELS:
            for endpoint in ("predictions", "explanations"):
                for name, (body, media) in bodies().items():
                    row = measure(running, f"{endpoint}/{model}", body, media, options.requests)
                    results["milliseconds"][f"{endpoint}/{model}, {name}"] = row
                    label = f"{endpoint}/{model}, {name}"
                    print(f"{label:46}" + "".join(f"{row[column]:12.1f}" for column in columns), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
