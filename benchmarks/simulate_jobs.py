"""Curves by simulation: a job by 1 to 256 workers, and replicas that answer requests which come at random.

    python -m benchmarks.simulate_jobs [--jobs benchmarks/results_jobs.json] [--out benchmarks/results_simulation.json]
    python -m benchmarks.simulate_jobs --write    put the record's tables into docs/scale.md

Events in time, by SimPy, with what ``bench_jobs`` measured: seconds of a chunk and of a batch with their spread, of a
worker's start, and of the driver for each chunk. Assumed are :data:`TROUBLE` and what the classes say. The tests hold
both models to theory: a makespan by hand, the mean time with deaths and restarts, the waits of M/D/1, M/M/c and what
M/M/1/K refuses.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import simpy

from benchmarks.tables import put
from imagexplain.ops.server import ROOT

RECORD = ROOT / "benchmarks" / "results_simulation.json"

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DATA_SETS = {10_000: 4, 1_000_000: 64}
"""Images of a chunk by number of images: what `imagexplain batch` chooses for 256 workers and for any number."""

REPLICAS = (1, 4, 16)
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
REQUESTS = 20_000
SEEDS = {"calm": 3, "troubled": 10}

TROUBLE: dict[str, Any] = {
    "actor_deaths_per_day": 0.1,
    "node_deaths_per_day": 1 / 30,
    "node_s": 300.0,
    "workers_of_node": 4,
    "slow_nodes": 0.05,
    "slowness": 2.0,
}
"""Assumptions, measured by nobody here: an actor dies every ten days, a node every thirty and is replaced in five
minutes; of twenty nodes one takes twice the time, always."""

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class JobModel:
    """A job: workers take chunks from one list, each after the driver has handled it, one chunk at a time.

    A worker that dies loses the chunk that it computes, which goes back to the end of the list; it starts anew at once,
    or when its node is replaced. Not modelled: disks and networks, chunks that Ray gives to an actor ahead, the start
    of a cluster, and deaths of the driver.

    Attributes:
        images: Number of images.
        chunk: Images of a chunk; the last may have fewer.
        workers: Number of workers.
        image_s: Mean seconds of an image.
        spread: Standard deviation of a whole chunk's seconds by their mean; they follow a gamma distribution.
        start_s: Seconds until a worker takes its first chunk.
        driver_s: Seconds of the driver for each chunk.
        actor_deaths_per_day: Rate at which each worker dies; deaths come at random.
        node_deaths_per_day: Rate at which each node dies, with all its workers.
        node_s: Seconds until a node is replaced.
        workers_of_node: Number of workers of a node.
        slow_nodes: Probability of a node to be slow.
        slowness: Factor of a slow node's seconds.
    """

    images: int
    chunk: int
    workers: int
    image_s: float
    spread: float = 0.0
    start_s: float = 0.0
    driver_s: float = 0.0
    actor_deaths_per_day: float = 0.0
    node_deaths_per_day: float = 0.0
    node_s: float = 0.0
    workers_of_node: int = 4
    slow_nodes: float = 0.0
    slowness: float = 1.0

    @property
    def work_s(self) -> float:
        """Seconds of a loop over all images, without a start."""
        return self.images * self.image_s


@dataclass(frozen=True)
class JobRun:
    """A simulated job: its seconds, and numbers of deaths and of images whose computation was lost."""

    seconds: float
    deaths: int
    lost_images: int


@dataclass(frozen=True)
class ServingModel:
    """Replicas that answer requests from one queue, a batch at a time, with whoever waits when one is free.

    Requests come at random (Poisson). Not modelled: choices of a router among the replicas' own queues, the wait for a
    batch to fill, replicas that are added, deaths, and time on the network.

    Attributes:
        rate: Requests a second.
        first_s: Mean seconds of a batch of one.
        further_s: Mean seconds that each further request of a batch adds.
        spread: Standard deviation of a batch's seconds by their mean; they follow a gamma distribution.
        replicas: Number of replicas.
        batch: Requests of a batch, at most.
        queue: Requests that may wait, those that gather for a next batch among them; beyond them one is refused.
    """

    rate: float
    first_s: float
    further_s: float
    spread: float = 0.0
    replicas: int = 1
    batch: int = 1
    queue: int | None = None

    @property
    def capacity(self) -> float:
        """Requests a second that full batches answer."""
        return self.replicas * self.batch / (self.first_s + (self.batch - 1) * self.further_s)


@dataclass(frozen=True)
class ServingRun:
    """Simulated requests: seconds from the arrival to the answer, to the begin of the batch, and how many were refused
    of those that came."""

    latencies: list[float]
    waits: list[float]
    refused: int
    came: int


def simulate_job(model: JobModel, seed: int) -> JobRun:
    """Simulate a job once.

    Example:
        >>> from benchmarks.simulate_jobs import JobModel, simulate_job
        >>> simulate_job(JobModel(images=10, chunk=2, workers=2, image_s=1.0, start_s=5.0), seed=0).seconds
        11.0
    """
    draw, env = random.Random(seed), simpy.Environment()
    chunks, driver, done = simpy.Store(env), simpy.Resource(env), env.event()
    for start in range(0, model.images, model.chunk):
        chunks.put(min(model.chunk, model.images - start))
    left, deaths, lost = model.images, 0, 0

    def worker(factor: float) -> Process:
        nonlocal left, deaths, lost
        absent = 0.0
        while True:
            held: simpy.Event | None = None
            try:
                yield env.timeout(absent + model.start_s)
                while True:
                    with chunks.get() as held:
                        images = yield held
                        with driver.request() as turn:
                            yield turn
                            yield env.timeout(model.driver_s)
                        yield env.timeout(factor * images * model.image_s * _gamma(draw, model.spread))
                    held, left = None, left - images
                    if left == 0:
                        done.succeed()
            except simpy.Interrupt as death:
                deaths, absent = deaths + 1, float(death.cause or 0)
                if held is not None and held.triggered:
                    lost += int(held.value or 0)
                    chunks.put(held.value)

    def dies(per_day: float, victims: list[simpy.Process], absent: float) -> Process:
        while True:
            yield env.timeout(draw.expovariate(per_day / 86_400))
            for each in victims:
                each.interrupt(absent)

    for first in range(0, model.workers, model.workers_of_node):
        factor = model.slowness if draw.random() < model.slow_nodes else 1.0
        node = [env.process(worker(factor)) for _ in range(first, min(first + model.workers_of_node, model.workers))]
        if model.node_deaths_per_day:
            env.process(dies(model.node_deaths_per_day, node, model.node_s))
        if model.actor_deaths_per_day:
            for each in node:
                env.process(dies(model.actor_deaths_per_day, [each], 0.0))
    env.run(done)
    return JobRun(env.now, deaths, lost)


def simulate_serving(model: ServingModel, requests: int, seed: int) -> ServingRun:
    """Simulate so many requests; the first tenth, before the queue has its usual length, does not count."""
    draw, env = random.Random(seed), simpy.Environment()
    queue = simpy.Store(env)
    counted_from, latencies, waits, refused, answered = requests // 10, list[float](), list[float](), 0, env.event()
    unanswered = requests

    def leave(count: int) -> None:
        nonlocal unanswered
        unanswered -= count
        if unanswered == 0:
            answered.succeed()

    def arrivals() -> Process:
        nonlocal refused
        for number in range(requests):
            yield env.timeout(draw.expovariate(model.rate))
            if model.queue is not None and len(queue.items) >= model.queue:
                refused += number >= counted_from
                leave(1)
            else:
                queue.put((number, env.now))

    def replica() -> Process:
        while True:
            batch = [(yield queue.get())]
            more = model.batch - 1
            batch += queue.items[:more]
            del queue.items[:more]
            begun = env.now
            seconds = model.first_s + (len(batch) - 1) * model.further_s
            yield env.timeout(seconds * _gamma(draw, model.spread))
            counted = [came for number, came in batch if number >= counted_from]
            latencies.extend(env.now - came for came in counted)
            waits.extend(begun - came for came in counted)
            leave(len(batch))

    env.process(arrivals())
    for _ in range(model.replicas):
        env.process(replica())
    env.run(answered)
    return ServingRun(latencies, waits, refused, requests - counted_from)


def _gamma(draw: random.Random, spread: float) -> float:
    """A factor of mean 1 and this standard deviation."""
    return draw.gammavariate(spread**-2, spread**2) if spread else 1.0


def job_models(measured: dict[str, Any]) -> Iterator[JobModel]:
    """Models of the record's jobs, without trouble."""
    chunk = measured["chunk_seconds"]
    alone = chunk["sd"] / chunk["mean"] * measured["chunk"] ** 0.5  # of one image, were they independent
    for images, size in DATA_SETS.items():
        for workers in WORKERS:
            yield JobModel(
                images,
                size,
                workers,
                chunk["mean"] / measured["chunk"],
                alone / size**0.5,
                measured["ways"]["one actor"]["start_s"],
                measured["driver"]["seconds_per_chunk"],
            )


def serving_models(measured: dict[str, Any]) -> Iterator[tuple[float, ServingModel]]:
    """Loads, as parts of what full batches answer, and models of the record's replicas."""
    seconds, spread = measured["batch_seconds"], measured["chunk_seconds"]["sd"] / measured["chunk_seconds"]["mean"]
    batch = max(map(int, seconds))
    first, last = seconds["1"], seconds[str(batch)]
    for replicas in REPLICAS:
        room = 20 + replicas * batch
        model = ServingModel(1.0, first, (last - first) / max(1, batch - 1), spread, replicas, batch, room)
        for load in LOADS:
            yield load, replace(model, rate=load * model.capacity)


def record(measured: dict[str, Any]) -> dict[str, Any]:
    """The record of both models."""
    jobs = []
    for model in job_models(measured):
        row: dict[str, Any] = {"images": model.images, "chunk": model.chunk, "workers": model.workers}
        for name, each in {"calm": model, "troubled": replace(model, **TROUBLE)}.items():
            runs = [simulate_job(each, seed) for seed in range(SEEDS[name])]
            row[name] = {
                "hours": statistics.mean(run.seconds for run in runs) / 3600,
                "speedup": statistics.mean(model.work_s / run.seconds for run in runs),
                "deaths": statistics.mean(run.deaths for run in runs),
                "lost": statistics.mean(run.lost_images for run in runs) / model.images,
            }
        jobs.append(row)
        print(row, flush=True)
    serving = []
    for load, one in serving_models(measured):
        served = [simulate_serving(one, REQUESTS, seed) for seed in range(SEEDS["calm"])]
        latencies = sorted(second for run in served for second in run.latencies)
        cuts = statistics.quantiles(latencies, n=100)
        serving.append(
            {
                "replicas": one.replicas,
                "load": load,
                "requests_per_s": one.rate,
                **{f"p{percent}_s": cuts[percent - 1] for percent in (50, 95, 99)},
                "refused": sum(run.refused for run in served) / sum(run.came for run in served),
            }
        )
        print(serving[-1], flush=True)
    first, batched = next(job_models(measured)), next(serving_models(measured))[1]
    taken = ("machine", "load", "images", "rounds", "chunk", "chunk_seconds", "batch_seconds", "driver")
    return {
        "measured": {name: measured[name] for name in taken},
        "job": {name: asdict(first)[name] for name in ("image_s", "start_s", "driver_s")},
        "trouble": TROUBLE,
        "serving": {name: asdict(batched)[name] for name in ("first_s", "further_s", "spread", "batch")},
        "seeds": SEEDS,
        "requests": REQUESTS,
        "jobs": jobs,
        "replicas": serving,
    }


def job_table(found: dict[str, Any]) -> str:
    """The table of jobs, a row for each number of workers."""
    few, many = DATA_SETS
    head = f"| workers | {few:,} images: minutes | speedup | {many:,} images: hours | speedup | with trouble | lost |"
    lines = [head, "| --- " * 7 + "|"]
    rows = {(row["images"], row["workers"]): row for row in found["jobs"]}
    for workers in WORKERS:
        small, large = rows[few, workers], rows[many, workers]
        calm, troubled = large["calm"], large["troubled"]
        lines.append(
            f"| {workers} | {60 * small['calm']['hours']:.1f} | {small['calm']['speedup']:.1f} "
            f"| {calm['hours']:.2f} | {calm['speedup']:.1f} | {troubled['speedup']:.1f} | {troubled['lost']:.3%} |"
        )
    return "\n".join(lines) + "\n"


def serving_table(found: dict[str, Any]) -> str:
    """The table of latencies, a row for each load."""
    names = [f"{count} replica{'s' * (count > 1)}" for count in REPLICAS]
    lines = [f"| load | {' | '.join(f'{name}: p50 / p95 / p99, s | refused' for name in names)} |"]
    lines.append("| --- " * (1 + 2 * len(REPLICAS)) + "|")
    rows = {(row["replicas"], row["load"]): row for row in found["replicas"]}
    for load in LOADS:
        cells = [f"{load:.1f}"]
        for replicas in REPLICAS:
            row = rows[replicas, load]
            cells += [" / ".join(f"{row[f'p{percent}_s']:.2f}" for percent in (50, 95, 99)), f"{row['refused']:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_page(found: dict[str, Any]) -> None:
    """Put the record's tables into their page."""
    put("scale", {"jobs by simulation": job_table(found), "replicas by simulation": serving_table(found)})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=Path, default=ROOT / "benchmarks" / "results_jobs.json")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true", help="write the tables of the record into docs/scale.md")
    given = parser.parse_args()
    if given.write:
        write_page(json.loads(RECORD.read_text("utf-8")))
        return
    found = record(json.loads(given.jobs.read_text("utf-8")))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
