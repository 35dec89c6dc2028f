"""A job over a data set: images a second by a plain loop, by one of Ray's actors and by two, and an actor's memory.

    python -m benchmarks.bench_jobs [--images 240] [--rounds 3] [--out benchmarks/results_jobs.json]

Each way explains the same scenes by the demonstration's ResNet, 50 steps and a table of superpixels, with one thread a
process. The ways take turns in an order that is drawn for each round. Start-up is told apart: the rate is that from the
first chunk that is done to the last, with as many chunks begun at once as there are workers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from evaluation.machine import machine
from imagexplain.archive.build import build_all
from imagexplain.cluster import ray_job
from imagexplain.cluster.inputs import items
from imagexplain.cluster.job import Job, begin, run_here
from imagexplain.ops.server import ROOT
from training.scenes import SceneSettings, scene

WAYS = {"loop": 0, "one actor": 1, "two actors": 2}
"""Number of actors of each way, 0 for a loop in one process."""

CHUNK = 8
OPTIONS = "segments=slic&n_segments=20&baseline=black"


def draw(folder: Path, count: int) -> None:
    """Scenes of 160 × 160 as files."""
    for index in range(count):
        Image.fromarray(scene(5, index, SceneSettings(size=(160, 160))).image).save(folder / f"{index:05}.png")


def once(way: str, archive: Path, photos: Path) -> dict[str, float]:
    """One run in this process: seconds until the first chunk was done, images a second from there on, and MiB."""
    with tempfile.TemporaryDirectory() as out:
        job = Job(archive, Path(out), OPTIONS, chunk=CHUNK)
        chunks, actors = begin(job, items([str(photos)])), WAYS[way]
        started, done, private = time.perf_counter(), list[tuple[float, int]](), 0.0
        own = run_here(job, chunks) if actors == 0 else ray_job.run(job, chunks, ray_job.Actors(actors))
        for progress in own:
            done.append((time.perf_counter(), progress.images))
            if actors and len(done) == len(chunks) // 2:
                private = _private_mib()
        if actors == 0:
            private = psutil.Process().memory_full_info().uss / 2**20
    first = min(max(1, actors), len(done) - 1)  # the first of each worker
    images = sum(count for _, count in done[first:])
    seconds = done[-1][0] - done[first - 1][0]
    return {"start_s": done[0][0] - started, "images_per_s": images / seconds, "mib": private}


def _private_mib() -> float:
    """The largest private memory of an actor."""
    workers = [
        one for one in psutil.process_iter(["cmdline"]) if "ray::MapWorker" in " ".join(one.info["cmdline"] or [])
    ]
    return max((one.memory_full_info().uss / 2**20 for one in workers), default=0.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--once", nargs=3, metavar=("WAY", "ARCHIVE", "PHOTOS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        way, archive, photos = given.once
        print(json.dumps(once(way, Path(archive), Path(photos))))
        return
    with tempfile.TemporaryDirectory() as folder:
        photos, store = Path(folder, "photos"), Path(folder, "store")
        photos.mkdir()
        draw(photos, given.images)
        build_all([ROOT / "archive_specs" / "resnet.yaml"], store)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(given.rounds):
            for way in random.Random(number).sample(list(WAYS), len(WAYS)):
                command = [sys.executable, "-m", "benchmarks.bench_jobs"]
                command += ["--once", way, str(store / "resnet.mar"), str(photos)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                runs[way].append(json.loads(told.stdout.splitlines()[-1]))
                print(f"{way}: {runs[way][-1]}", flush=True)
    found: dict[str, Any] = {
        way: {name: round(statistics.median(one[name] for one in own), 2) for name in own[0]}
        for way, own in runs.items()
    }
    record = {"machine": machine(), "images": given.images, "rounds": given.rounds, "ways": found}
    for way in WAYS:
        found[way]["to_loop"] = round(found[way]["images_per_s"] / found["loop"]["images_per_s"], 3)
    print(json.dumps(record, indent=2))
    if given.out:
        given.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
