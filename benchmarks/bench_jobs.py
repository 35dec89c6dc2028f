"""A job over a data set: a plain loop, one of Ray's actors and two, in turns; the driver's own cost; the list.

    python -m benchmarks.bench_jobs [--images 240] [--rounds 3] [--out benchmarks/results_jobs.json]
    python -m benchmarks.bench_jobs --write    put what the record says into docs/datasets.md and docs/scale.md

Each way explains the same scenes by the demonstration's ResNet, 50 steps and a table of superpixels, with one thread a
process, in a process of its own; the order is drawn for each round. Start-up is told apart: the rate is that from the
first chunk of each worker until the first of them has nothing left. The driver is measured with actors that do nothing,
its memory by two numbers of chunks; the list by names that no files have. The loop's process also tells the spread of
its chunks' seconds and those of a batch, which the simulation takes.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from PIL import Image

from benchmarks.tables import put
from evaluation.machine import machine
from imagexplain.api.request import JSON
from imagexplain.archive.build import build_all
from imagexplain.cluster import ray_job
from imagexplain.cluster.explainer import Explainer
from imagexplain.cluster.inputs import Item, items
from imagexplain.cluster.job import INPUTS, Job, begin, run_here
from imagexplain.cluster.lists import Chunk
from imagexplain.ops.server import ROOT
from training.scenes import SceneSettings, scene

RECORD = ROOT / "benchmarks" / "results_jobs.json"

WAYS = {"loop": 0, "one actor": 1, "two actors": 2}
"""Number of actors of each way, 0 for a loop in one process."""

CHUNK = 8
OPTIONS = "segments=slic&n_segments=20&baseline=black"
IDLE_CHUNKS = (300, 1500)
"""Numbers of chunks that actors which do nothing are given."""

NAMES = 1_000_000


class IdleActor:
    """An actor that does nothing with a chunk."""

    def __init__(self, job: Job) -> None:
        pass

    def __call__(self, row: dict[str, Any]) -> ray_job.Answer:
        """The progress of a chunk."""
        return {"images": row["images"], "errors": 0, "error": ""}


def draw(folder: Path, count: int) -> None:
    """Scenes of 160 × 160 as files."""
    for index in range(count):
        (folder / f"{index:05}.png").write_bytes(_png(index))


def once(way: str, archive: Path, photos: Path) -> dict[str, Any]:
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
    workers = max(1, actors)
    first, last = workers - 1, len(done) - workers  # between them all are at work
    rate = sum(count for _, count in done[first + 1 : last + 1]) / (done[last][0] - done[first][0])
    start = done[0][0] - started - CHUNK * workers / rate
    found: dict[str, Any] = {"start_s": start, "images_per_s": rate, "mib": private}
    if actors == 0:
        found["chunks_s"] = [after - before for (before, _), (after, _) in itertools.pairwise(done)]
        found["batch_s"] = batch_seconds(archive)
    return found


def batch_seconds(archive: Path) -> dict[str, float]:
    """Median seconds of an answer to a batch, by its size; no scene comes twice, for answers are cached."""
    explainer = Explainer.load(archive, "classifier")
    scenes = (_png(index) for index in itertools.count(10**6))
    seconds: dict[str, list[float]] = {}
    for _ in range(6):
        for size in range(1, explainer.batch + 1):
            bodies = [{"image": png} for png in itertools.islice(scenes, size)]
            begun = time.perf_counter()
            explainer.answer(bodies, "explanation", JSON, OPTIONS)
            seconds.setdefault(str(size), []).append(time.perf_counter() - begun)
    return {size: statistics.median(own[1:]) for size, own in seconds.items()}


def _png(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene(5, index, SceneSettings(size=(160, 160))).image).save(file, "PNG")
    return file.getvalue()


def idle(count: int, archive: Path) -> dict[str, float]:
    """The driver's seconds for a chunk that costs nothing else, its processor's among them, and its memory."""
    own = psutil.Process()
    _peak()
    with tempfile.TemporaryDirectory() as out, patch.object(ray_job, "ExplainingActor", IdleActor):
        job = Job(archive, Path(out))
        chunks = [Chunk("0000.jsonl", number, CHUNK) for number in range(count)]
        done, cpu = [], 0.0
        for _ in ray_job.run(job, chunks, ray_job.Actors(2)):
            done.append(time.perf_counter())
            if len(done) == count // 10:
                cpu = sum(own.cpu_times()[:2])
        cpu = sum(own.cpu_times()[:2]) - cpu
    counted = len(done) - count // 10
    seconds = done[-1] - done[count // 10 - 1]
    return {"wall_s": seconds / counted, "cpu_s": cpu / counted, "bytes": _peak()}


def listing(archive: Path) -> dict[str, float]:
    """Bytes that the list of a job takes of an image, by names of 19 letters."""

    def names() -> Iterator[Item]:
        for number in range(NAMES):
            name = f"photos/{number:08}.jpg"
            yield Item(name, name, 0, 47_000)

    found: dict[str, float] = {"names": NAMES}
    with tempfile.TemporaryDirectory() as out:
        job = Job(archive, Path(out, "job"))
        for run in ("first", "again"):
            _peak()
            before, begun = _peak(), time.perf_counter()
            begin(job, names())
            found |= {f"{run}_s": time.perf_counter() - begun, f"{run}_bytes": (_peak() - before) / NAMES}
        found["disk_bytes"] = sum(path.stat().st_size for path in (job.out / INPUTS).iterdir()) / NAMES
    return found


def _peak() -> int:
    """Bytes of this process's memory at the most, since the last call."""
    status = Path("/proc/self/status").read_text("utf-8")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _private_mib() -> float:
    """The largest private memory of an actor of this process's Ray."""
    own = psutil.Process().children(recursive=True)
    workers = [one for one in own if "ray::MapWorker" in " ".join(one.cmdline())]
    return max((one.memory_full_info().uss / 2**20 for one in workers), default=0.0)


def _asked(*task: str) -> dict[str, Any]:
    """The findings of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_jobs", "--once", *task]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    print(*task[:2], found, flush=True)
    return found


def measure(images: int, rounds: int) -> dict[str, Any]:
    """The record."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        photos, store = Path(folder, "photos"), Path(folder, "store")
        photos.mkdir()
        draw(photos, images)
        build_all([ROOT / "archive_specs" / "resnet.yaml"], store)
        archive = str(store / "resnet.mar")
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in random.Random(number).sample(list(WAYS), len(WAYS)):
                runs[way].append(_asked("way", way, archive, str(photos)))
        few, many = (_asked("idle", str(count), archive) for count in IDLE_CHUNKS)
        listed = _asked("list", archive)
    chunks = [second for run in runs["loop"] for second in run["chunks_s"]]
    ways = {
        way: {name: statistics.median(run[name] for run in own) for name in ("start_s", "images_per_s", "mib")}
        for way, own in runs.items()
    }
    for own in ways.values():
        own["to_loop"] = own["images_per_s"] / ways["loop"]["images_per_s"]
    sizes = runs["loop"][0]["batch_s"]
    return {
        "machine": machine(),
        "load": load,
        "images": images,
        "rounds": rounds,
        "chunk": CHUNK,
        "ways": ways,
        "chunk_seconds": {"mean": statistics.mean(chunks), "sd": statistics.stdev(chunks)},
        "batch_seconds": {size: statistics.median(run["batch_s"][size] for run in runs["loop"]) for size in sizes},
        "driver": {
            "chunks": IDLE_CHUNKS[1],
            "seconds_per_chunk": many["wall_s"],
            "processor_seconds_per_chunk": many["cpu_s"],
            "bytes_per_chunk": (many["bytes"] - few["bytes"]) / (IDLE_CHUNKS[1] - IDLE_CHUNKS[0]),
        },
        "list": listed,
    }


def table(found: dict[str, Any]) -> str:
    """The table of ways, and what it is of."""
    lines = ["| | images a second | of the loop's | start, s | own memory of a worker, MiB |", "| --- " * 5 + "|"]
    for way, own in found["ways"].items():
        name = {"loop": "a plain loop"}.get(way, way)
        lines.append(
            f"| {name} | {own['images_per_s']:.2f} | {own['to_loop']:.2f} | {own['start_s']:.1f} | {own['mib']:.0f} |"
        )
    runs = f"the median of {found['rounds']} runs" if found["rounds"] > 1 else "a single run"
    lines += ["", f"Each is {runs} over {found['images']} images; the machine's load was {found['load']:.1f} before."]
    return "\n".join(lines) + "\n"


def memory(found: dict[str, Any]) -> str:
    """The item of docs/scale.md about what a job's driver holds."""
    listed, of_chunk = found["list"], found["driver"]["bytes_per_chunk"]
    each = listed["first_bytes"] + of_chunk / 64
    text = (
        f"1. **The driver of a job.** While it lists the images it holds {listed['first_bytes']:.0f} bytes of each, "
        f"with names of 19 letters, and all names of the folder that it is in; the list on the disk takes "
        f"{listed['disk_bytes']:.0f}. On Ray it then holds "
        f"{of_chunk / 1000:.1f} kB of each chunk, with 64 images {of_chunk / 64:.0f} bytes of each. So a billion take "
        f"{each:.0f} GB, of which a larger `--chunk` saves most. Each chunk is also a file: 15.6 million of them. A "
        f"million images a job take {each / 1000:.2f} GB and 15,600 files: a thousand jobs, each with an output of its "
        f"own."
    )
    return textwrap.fill(text, 120, subsequent_indent="   ", break_on_hyphens=False) + "\n"


def write_pages(found: dict[str, Any]) -> None:
    """Put what the record says into the pages."""
    put("datasets", {"jobs": table(found)})
    put("scale", {"memory of a job": memory(found)})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true", help="write what the record says into docs/")
    parser.add_argument("--once", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write_pages(json.loads(RECORD.read_text("utf-8")))
        return
    if given.once:
        task, *others = given.once
        found = {
            "way": lambda: once(others[0], Path(others[1]), Path(others[2])),
            "idle": lambda: idle(int(others[0]), Path(others[1])),
            "list": lambda: listing(Path(others[0])),
        }[task]()
        print(json.dumps(found))
        return
    record = measure(given.images, given.rounds)
    print(json.dumps(record, indent=2))
    if given.out:
        given.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
