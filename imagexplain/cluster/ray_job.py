"""A job on Ray Data: chunks go through actors that hold the archives, on one machine or on the nodes of a cluster.

An actor, a node or the driver may die at any time. Ray computes a chunk again that had not come back; what it had
written already is written again under the same name.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from imagexplain.cluster.explainer import Explainer
from imagexplain.cluster.job import Job, Progress, explain_chunk, find_segments, load_explainer, load_segmenter
from imagexplain.cluster.lists import Chunk

OBJECT_STORE_BYTES = 200_000_000
"""Memory of the object store of a Ray that is started here: chunks are names, and masks as run lengths."""

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}


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


class ExplainingActor:
    """An actor that holds the classifier of a job, loaded for its first chunk: of what fails before that, Ray keeps no
    more than the text."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def explainer(self) -> Explainer:
        """The classifier."""
        return load_explainer(self.job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The progress of a chunk."""
        masks = pickle.loads(row["masks"]) if "masks" in row else None
        progress = explain_chunk(self.explainer, self.job, _chunk(row), masks)
        return {"images": progress.images, "errors": progress.errors}


class SegmentingActor:
    """An actor that holds the segmenter of a job, loaded for its first chunk."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def segmenter(self) -> Explainer:
        """The segmenter."""
        return load_segmenter(self.job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A chunk with the masks of its images."""
        return {**row, "masks": pickle.dumps(find_segments(self.segmenter, self.job, _chunk(row)))}


def run(job: Job, chunks: Sequence[Chunk], actors: Actors, address: str | None = None) -> Iterator[Progress]:
    """Compute chunks by actors; yields the progress of each, as it is done.

    Args:
        job: Settings of the job.
        chunks: Chunks, at least one.
        actors: Actors that compute them.
        address: Address of a cluster; by default a Ray of this process's own is started, and ended again.

    Raises:
        ConnectionError: no cluster at the address.
        ValueError: an archive that an actor cannot load.
        JobStoppedError: no room for what an actor found. The job goes on with the next run.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if address is None:
        cores = _cores(job, actors)
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET)
    else:
        ray.init(address, **QUIET)
    try:
        context = DataContext.get_current()
        context.enable_progress_bars = False  # the command has its own
        context.raise_original_map_exception = True  # else what an actor raises comes as text alone
        rows: Dataset = ray.data.from_items([asdict(chunk) for chunk in chunks], override_num_blocks=len(chunks))
        if job.segmenter is not None:
            rows = _by_actors(rows, SegmentingActor, job, actors.segmenters, actors)
        rows = _by_actors(rows, ExplainingActor, job, actors.count, actors)
        for row in rows.iter_rows():
            yield Progress(row["images"], row["errors"])
    except ray.exceptions.RayError as error:
        raise _cause(error) from error
    finally:
        ray.shutdown()


def _chunk(row: dict[str, Any]) -> Chunk:
    return Chunk(row["file"], row["offset"], row["images"])


def _cores(job: Job, actors: Actors) -> int:
    """Cores that the actors take, rounded up."""
    return math.ceil((actors.count + (actors.segmenters if job.segmenter is not None else 0)) * actors.cpus)


def _cause(error: BaseException) -> Exception:
    """The error of an actor of ours that Ray's error is about, or else a RuntimeError with Ray's words."""
    found: BaseException | None = error
    while found is not None:
        cause = getattr(found, "cause", None) or found.__cause__
        if isinstance(found, OSError | ValueError) and not isinstance(found, ray.exceptions.RayError):
            return found
        found = cause
    return RuntimeError(str(error))


def _by_actors(rows: Dataset, actor: type, job: Job, count: int, actors: Actors) -> Dataset:
    found: Dataset = rows.map(
        actor,
        fn_constructor_args=(job,),
        compute=ActorPoolStrategy(size=count),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus or None,
    )
    return found
