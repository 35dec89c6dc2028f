"""Time that the front door adds to a prediction, by a real TorchServe behind a real nginx.

The demonstration's BiT is served, and nginx before it with TLS 1.3, a client's key and its limits, as `make serve-edge`
starts it. One client keeps two connections open, one to TorchServe and one to the front door, and sends each photo by
both, in turns whose order is drawn; what is reported is the difference of the medians and their ratio. The photo's
scores are cached in the worker, so that the prediction takes little and the difference shows. It does not show what
many clients at once do, nor a network between them.

    python -m benchmarks.bench_edge [--requests 500] [--out benchmarks/results_edge.json]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.machine import machine
from imagexplain.archive.build import build_all
from imagexplain.client.loopback import LOOPBACK
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import EdgeSettings, RateSettings
from imagexplain.ops.server import ROOT, free_port, start, stop
from training.scenes import SceneSettings, scene

MODEL = "bit"
SIZES = {"32×32": (32, 32), "640×480": (480, 640), "2000×1500": (1500, 2000)}
WARM_UP = 50
RATE = RateSettings(requests_per_second=10_000, burst=10_000, connections=100)
"""Limits that the benchmark does not meet."""


@dataclass(frozen=True)
class Way:
    """A connection that stays open, and the header that authorises its requests."""

    connection: HTTPConnection
    headers: dict[str, str]

    def seconds(self, body: bytes) -> float:
        """Seconds of one prediction, from the request to the answer's last byte."""
        begun = time.perf_counter()
        self.connection.request("POST", f"/predictions/{MODEL}", body, self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        taken = time.perf_counter() - begun
        if answer.status != 200:
            raise RuntimeError(f"wanted an answer, got {answer.status} {content[:200]!r}")
        return taken


@contextmanager
def ways() -> Iterator[dict[str, Way]]:
    """The two ways to a server of the benchmark's own: directly, and through its front door."""
    with tempfile.TemporaryDirectory() as folder:
        store, run = Path(folder, "store"), Path(folder, "run")
        build_all([ROOT / "archive_specs" / f"{MODEL}.yaml"], store, environ={})
        server = start(store=store, run=run, port=free_port())
        try:
            key = edge_keys.add(run / edge.FOLDER, "benchmark")
            settings = EdgeSettings(port=server.ports["inference"] + 6, client=RATE, address=RATE)
            door = edge.start(server, settings)
            trusted = ssl.create_default_context(cafile=door.certificate)
            common = {"Content-Type": "image/jpeg", "Accept": "application/json"}
            found = {
                "direct": Way(HTTPConnection(LOOPBACK, server.ports["inference"]), common | server.headers()),
                "edge": Way(
                    HTTPSConnection(LOOPBACK, door.port, context=trusted), common | {"Authorization": f"Bearer {key}"}
                ),
            }
            for way in found.values():
                way.connection.connect()
                way.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield found
        finally:
            edge.stop(run, drain_s=5, quiet=True)
            stop(run, drain_s=0)


def photo(size: tuple[int, int]) -> bytes:
    """A scene of (height, width) as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(scene(3, 0, SceneSettings(size=size)).image).save(file, "JPEG", quality=90)
    return file.getvalue()


def measure(both: dict[str, Way], body: bytes, requests: int, seed: int = 0) -> dict[str, float]:
    """Milliseconds of predictions of one photo by both ways: medians, the difference, and their ratio."""
    order = random.Random(seed)
    taken: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(WARM_UP + requests):
        for name in order.sample(sorted(both), len(both)):
            seconds = both[name].seconds(body)
            if turn >= WARM_UP:
                taken[name].append(1e3 * seconds)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    percentiles = {f"{name}_p95": statistics.quantiles(values, n=20)[-1] for name, values in taken.items()}
    return {
        **medians,
        **percentiles,
        "added": medians["edge"] - medians["direct"],
        "ratio": medians["edge"] / medians["direct"],
        "request_kB": len(body) / 1e3,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "requests": options.requests, "milliseconds": {}}
    with ways() as both:
        for name, size in SIZES.items():
            row = measure(both, photo(size), options.requests)
            results["milliseconds"][name] = row
            print(f"{name:12}" + "".join(f"{key} {value:.2f}  " for key, value in row.items()), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
