"""The images of a data set explained into a table, by `imagexplain batch --input`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

from tqdm import tqdm

from imagexplain.api.options import SEGMENTS
from imagexplain.cli.named_options import named_options
from imagexplain.cluster.inputs import items
from imagexplain.cluster.job import TABLE, Job, Progress, begin, run_here
from imagexplain.cluster.lists import Chunk
from imagexplain.ops.store import archive_of
from imagexplain.progress import say


def run(given: argparse.Namespace) -> int:
    """Explain the images of the parsed arguments.

    Returns:
        The exit status: 0 also where single images have errors, whose rows say which.
    """
    try:
        job = _job(given)
        with tqdm(items(given.input), "listed", unit="image", disable=None, leave=False) as listed:
            chunks = begin(job, listed)
        images = sum(chunk.images for chunk in chunks)
        started = time.monotonic()
        errors = done = 0
        with tqdm(total=images, unit="image", disable=None) as bar:
            for progress in _run(job, chunks, given):
                done, errors = done + progress.images, errors + progress.errors
                bar.update(progress.images)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"error: {error}\nthe same command goes on with what {given.output} lacks", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped: the same command goes on with what {given.output} lacks", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    say(f"{job.out / TABLE}: {done} of {images} images, {errors} of them errors, in {seconds:.1f} s")
    return 0


def _job(given: argparse.Namespace) -> Job:
    for name, least in {"actors": 0, "segmenters": 1, "chunk": 1, "cpus": 0, "gpus": 0}.items():
        if (number := getattr(given, name)) is not None and number < least:
            raise ValueError(f"--{name}: wanted at least {least}, got {number}")
    options = named_options({"method": given.method, "segments": given.segments}, given.option)
    segmenter = None if options.get("segments") in (None, *SEGMENTS) else options.pop("segments")
    on_ray = given.actors > 0 or given.address is not None
    for name, wanted, holds in (
        ("threshold", "a segmenter as --segments", segmenter),
        ("segmenters", "a segmenter as --segments", segmenter),
        ("segmenters", "--actors or --address", on_ray),
        ("cpus", "--actors or --address", on_ray),
        ("gpus", "--actors or --address", on_ray),
    ):
        if getattr(given, name) is not None and not holds:
            raise ValueError(f"--{name}: wanted {wanted} beside it, got none")
    return Job(
        archive_of(given.model[0], given.store).resolve(),
        given.output.resolve(),
        urlencode(options),
        given.maps,
        None if segmenter is None else _segmenter_of(segmenter, given.store),
        "" if given.threshold is None else urlencode({"threshold": given.threshold}),
        given.chunk,
        max(1, given.actors),
    )


def _segmenter_of(name: str, store: Path) -> Path:
    try:
        return archive_of(name, store).resolve()
    except ValueError as error:
        raise ValueError(f"--segments: wanted {', '.join(SEGMENTS)} or a segmenter: {error}") from None


def _run(job: Job, chunks: Sequence[Chunk], given: argparse.Namespace) -> Iterator[Progress]:
    if not chunks:
        return
    if given.actors == 0 and given.address is None:
        yield from run_here(job, chunks)
        return
    from imagexplain.cluster import ray_job  # Ray is an extra

    actors = ray_job.Actors(
        max(1, given.actors),
        1 if given.segmenters is None else given.segmenters,
        1 if given.cpus is None else given.cpus,
        given.gpus or 0,
    )
    yield from ray_job.run(job, chunks, actors, given.address)
