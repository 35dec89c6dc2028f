"""The images of a data set explained into a table, by `imagexplain batch --input`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from tqdm import tqdm

from imagexplain.api.options import SEGMENTS
from imagexplain.cluster.inputs import items
from imagexplain.cluster.job import TABLE, Chunk, Job, Progress, begin, run_here
from imagexplain.ops.store import archive_of
from imagexplain.progress import say

CHUNK = 64
"""Number of images that are computed and written together, where the data set is large enough."""

CHUNKS_OF_ACTOR = 8
"""Number of chunks that each actor gets of a small data set, at least, so that none waits long for the last."""


def run(given: argparse.Namespace) -> int:
    """Explain the images of the parsed arguments.

    Returns:
        The exit status: 0 also where single images have errors, whose rows say which.
    """
    try:
        job, chunks = _begin(given)
        images = sum(len(chunk.items) for chunk in chunks)
        started = time.monotonic()
        errors = done = 0
        with tqdm(total=images, unit="image", disable=None) as bar:
            for progress in _run(job, chunks, given):
                done, errors = done + progress.images, errors + progress.errors
                bar.update(progress.images)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped: the same command goes on with what {given.output} lacks", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    say(f"{job.out / TABLE}: {done} of {images} images, {errors} of them errors, in {seconds:.1f} s")
    return 0


def _begin(given: argparse.Namespace) -> tuple[Job, list[Chunk]]:
    for name in ("actors", "segmenters"):
        if getattr(given, name) < (least := 0 if name == "actors" else 1):
            raise ValueError(f"--{name}: wanted at least {least}, got {getattr(given, name)}")
    if given.chunk is not None and given.chunk < 1:
        raise ValueError(f"--chunk: wanted at least 1, got {given.chunk}")
    options = dict(option.partition("=")[::2] for option in given.option)
    if given.method is not None:
        options["method"] = given.method
    segmenter = None
    if given.segments in SEGMENTS:
        options["segments"] = given.segments
    elif given.segments is not None:
        segmenter = archive_of(given.segments, given.store).resolve()
    listed = list(items(given.input))
    chunk = given.chunk or max(1, min(CHUNK, len(listed) // (CHUNKS_OF_ACTOR * max(1, given.actors))))
    job = Job(
        archive_of(given.model[0], given.store).resolve(),
        given.output.resolve(),
        urlencode(options),
        given.maps,
        segmenter,
        "" if given.threshold is None else urlencode({"threshold": given.threshold}),
        chunk,
    )
    return job, begin(job, listed)


def _run(job: Job, chunks: Sequence[Chunk], given: argparse.Namespace) -> Iterator[Progress]:
    if not chunks:
        return
    if given.actors == 0 and given.address is None:
        yield from run_here(job, chunks)
        return
    from imagexplain.cluster import ray_job  # Ray is an extra

    actors = ray_job.Actors(max(1, given.actors), given.segmenters, given.cpus, given.gpus)
    yield from ray_job.run(job, chunks, actors, given.address)
