"""Threads of a worker: the time of a request alone, and the requests that several clients get answered in a time.

    python -m benchmarks.bench_threads [--threads 1 2] [--seconds 20] [--rounds 2]
                                       [--out benchmarks/results_threads.json]

Seven of the demonstration's models are served, each by one worker with so many threads (OMP_NUM_THREADS). Explanations
of them all are asked in turn: first by one client, then by as many as there are cores, then by one for each model. The
settings take turns within a round.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.machine import machine
from imagexplain.archive.build import build_all
from imagexplain.client import Client
from imagexplain.ops.server import ROOT, Server, free_port, start, stop
from training.scenes import SceneSettings, scene

MODELS = ("bit", "imagenet", "lanet", "places", "resnet", "swin_classifier", "vit")
OPTIONS = {"steps": 20, "baseline": "black"}


def photo() -> bytes:
    """An encoded photo of 320 × 240."""
    file = io.BytesIO()
    Image.fromarray(scene(3, 0, SceneSettings(size=(240, 320))).image).save(file, "JPEG", quality=90)
    return file.getvalue()


def answered(server: Server, body: bytes, clients: int, seconds: float) -> dict[str, float]:
    """Answers a second, and the median and the longest time of one, with so many clients.

    Args:
        server: Server of :data:`MODELS`.
        body: Photo.
        clients: Number of clients, which begin with different models.
        seconds: Time for which requests are begun.
    """
    ends, times = time.perf_counter() + seconds, list[float]()

    def ask(offset: int) -> None:
        client = Client(server.inference, headers={**server.headers(), "Cache-Control": "no-cache"})
        for model in itertools.islice(itertools.cycle(MODELS), offset, None):
            if time.perf_counter() > ends:
                return
            path = f"explanations/{model}"
            times.append(client.post(path, body, "image/jpeg", accept="application/json", options=OPTIONS).seconds)

    begun = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "per_second": round(len(times) / (time.perf_counter() - begun), 2),
        "median_ms": round(1000 * statistics.median(times), 1),
        "longest_ms": round(1000 * max(times), 1),
    }


def measure(store: Path, run: Path, threads: int, seconds: float) -> dict[str, dict[str, float]]:
    """One start with so many threads for each worker, by number of clients."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    body, server = photo(), start(store=store, run=run, port=free_port())
    try:
        answered(server, body, 1, seconds / 4)  # the first requests of a worker are slower
        counts = (1, os.cpu_count() or 1, len(MODELS))
        return {str(clients): answered(server, body, clients, seconds) for clients in counts}
    finally:
        stop(run, quiet=True, drain_s=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        build_all([ROOT / "archive_specs" / f"{model}.yaml" for model in MODELS], store, environ={})
        for _ in range(options.rounds):
            rounds.append(
                {str(count): measure(store, Path(folder, "run"), count, options.seconds) for count in options.threads}
            )
            print(json.dumps(rounds[-1], indent=1), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
