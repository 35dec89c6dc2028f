"""A job on Ray Data: chunks go through actors that hold the archives, on one machine or on the nodes of a cluster.

An actor, a node or the driver may die at any time. Ray computes a chunk again that had not come back; what it had
written already is written again under the same name. An error comes back in the place of a chunk's progress: one that
an actor raised would come with pages of Ray's.
"""

from __future__ import annotations

import logging
import math
import pickle
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypedDict

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from imagexplain.cluster.explainer import Explainer
from imagexplain.cluster.job import (
    Job,
    JobStoppedError,
    Progress,
    explain_chunk,
    find_segments,
    load_explainer,
    load_segmenter,
)
from imagexplain.cluster.lists import Chunk

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 200_000_000
"""Memory of the object store of a Ray that is started here: chunks are names, and masks as run lengths."""

MAX_CONNECT_S = 10.0

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}

ERRORS: dict[str, type[Exception]] = {
    "JobStoppedError": JobStoppedError,
    "OSError": OSError,
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
}
"""Errors that an actor tells the driver of, the narrowest first; any other is a RuntimeError with its name."""


@dataclass(frozen=True)
class Actors:
    """Actors of a job.

    Attributes:
        count: Number of actors that explain.
        segmenters: Number of actors that find segments, where the job has a segmenter.
        cpus: Cores of each, which are its threads, too; may be a part of one.
        gpus: GPUs of each; may be a part of one.
    """

    count: int = 1
    segmenters: int = 1
    cpus: float = 1
    gpus: float = 0


class Answer(TypedDict):
    """Row that an actor gives back for a chunk: its progress, and an error for the driver to raise, or ""."""

    images: int
    errors: int
    error: str


class ExplainingActor:
    """An actor that holds the classifier of a job, loaded for its first chunk."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def explainer(self) -> Explainer:
        """The classifier."""
        return load_explainer(self.job)

    def __call__(self, row: dict[str, Any]) -> Answer:
        """The progress of a chunk, or the error of whoever had it."""
        if row.get("error"):
            return {"images": 0, "errors": 0, "error": row["error"]}
        try:
            masks = pickle.loads(row["masks"]) if "masks" in row else None
            progress = explain_chunk(self.explainer, self.job, _chunk(row), masks)
            return {"images": progress.images, "errors": progress.errors, "error": ""}
        except Exception as error:  # the driver's to raise
            return {"images": 0, "errors": 0, "error": _told(error)}


class SegmentingActor:
    """An actor that holds the segmenter of a job, loaded for its first chunk."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def segmenter(self) -> Explainer:
        """The segmenter."""
        return load_segmenter(self.job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A chunk with the masks of its images, or the error."""
        try:
            return {**row, "masks": pickle.dumps(find_segments(self.segmenter, self.job, _chunk(row))), "error": ""}
        except Exception as error:  # the driver's to raise
            return {**row, "masks": b"", "error": _told(error)}


def run(job: Job, chunks: Sequence[Chunk], actors: Actors, address: str | None = None) -> Iterator[Progress]:
    """Compute chunks by actors; yields the progress of each, as it is done.

    Args:
        job: Settings of the job.
        chunks: Chunks, at least one.
        actors: Actors that compute them.
        address: Address of a cluster; by default a Ray of this process's own is started, and ended again.

    Raises:
        ConnectionError: no cluster at the address.
        ValueError: an archive that an actor cannot load, options that it refuses, or more than any node has.
        JobStoppedError: no room for what an actor found. The job goes on with the next run.
        OSError: an archive or a list that an actor cannot read.
        RuntimeError: another error of an actor, or one of Ray's.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs of errors is raised as well
    if address is None:
        cores = _cores(job, actors)
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET)
    else:
        _check_address(address)
        ray.init(address, **QUIET)
    try:
        _check_room(actors)
        context = DataContext.get_current()
        context.enable_progress_bars = False  # the command has its own
        rows: Dataset = ray.data.from_items([asdict(chunk) for chunk in chunks], override_num_blocks=len(chunks))
        if job.segmenter is not None:
            rows = _by_actors(rows, SegmentingActor, job, actors.segmenters, actors)
        rows = _by_actors(rows, ExplainingActor, job, actors.count, actors)
        for row in rows.iter_rows():
            if row["error"]:
                kind, _, message = row["error"].partition(": ")
                raise ERRORS[kind](message)
            yield Progress(row["images"], row["errors"])
    except ray.exceptions.RayError as error:
        raise RuntimeError(" ".join(str(getattr(error, "cause", None) or error).split())) from error
    finally:
        ray.shutdown()


def _chunk(row: dict[str, Any]) -> Chunk:
    return Chunk(row["file"], row["offset"], row["images"])


def _cores(job: Job, actors: Actors) -> int:
    """Cores that the actors take, rounded up."""
    return math.ceil((actors.count + (actors.segmenters if job.segmenter is not None else 0)) * actors.cpus)


def _check_address(address: str) -> None:
    """Refuse a host and a port where nobody listens, for Ray would ask for minutes. Raises ConnectionError."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), MAX_CONNECT_S).close()
        except OSError as error:
            got = error.strerror or error
            raise ConnectionError(f"--address: wanted that of a Ray cluster, got {address}: {got}") from None


def _check_room(actors: Actors) -> None:
    """Refuse actors that no node could hold, for which Ray would wait. Raises ValueError."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, wanted in {"CPU": actors.cpus, "GPU": actors.gpus}.items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if wanted > most:
            raise ValueError(f"--{name.lower()}s: wanted at most the {most:g} of the largest node, got {wanted:g}")


def _told(error: Exception) -> str:
    """An error as text: the name of one of :data:`ERRORS`, and its message."""
    for name, kind in ERRORS.items():
        if isinstance(error, kind):
            return f"{name}: {error}"
    logger.exception("an actor of a job has failed")  # into Ray's log of the actor
    return f"RuntimeError: {type(error).__name__}: {error}"


def _by_actors(rows: Dataset, actor: type, job: Job, count: int, actors: Actors) -> Dataset:
    found: Dataset = rows.map(
        actor,
        fn_constructor_args=(job,),
        compute=ActorPoolStrategy(size=count),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus or None,
    )
    return found
