"""Explain the images of a data set by a model of the store: a table with a row for each, and their maps if wanted.

imagexplain batch --input photos --model resnet --output results
imagexplain batch --input 'shards/*.tar' --model imagenet --segments swin --maps --actors 4 --output results
imagexplain batch --input photos.parquet --model vit --method grad_cam --address auto --output /shared/results

An input is a folder, a glob, an image, a tar file, a Parquet file with a column of bytes, or a .txt file that lists
such. The same command again goes on where a run stopped. With --actors the work is done by Ray's actors, on this
machine or on the cluster at an address, whose nodes share the output's folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

from tqdm import tqdm

from imagexplain.api.options import SEGMENTS
from imagexplain.archive.store import archive_of
from imagexplain.checkout import ROOT
from imagexplain.cluster.inputs import items
from imagexplain.cluster.job import TABLE, Chunk, Job, Progress, begin, run_here
from imagexplain.progress import say

CHUNK = 64
"""Number of images that are computed and written together, where the data set is large enough."""

CHUNKS_OF_ACTOR = 8
"""Number of chunks that each actor gets of a small data set, at least, so that none waits long for the last."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--input", action="append", required=True, metavar="WHERE", help="images; may be repeated")
    made.add_argument("--model", required=True, help="name, name/version or .mar file of a classifier")
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the table and the maps")
    made.add_argument("--method", help="of attribution, see docs/methods.md (default: the archive's)")
    made.add_argument("--segments", help="groups to score: slic, grid, or the name or .mar file of a segmenter")
    made.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    made.add_argument("--threshold", type=float, help="score that a segmenter's instances must exceed")
    made.add_argument("--maps", action="store_true", help="keep the tensors of each explanation, as safetensors")
    made.add_argument("--actors", type=int, default=0, metavar="N", help="Ray's actors (default: this process alone)")
    made.add_argument("--segmenters", type=int, default=1, metavar="N", help="actors that find segments (%(default)s)")
    made.add_argument("--address", help="address of a Ray cluster (default: a Ray of this command's own)")
    made.add_argument("--cpus", type=float, default=1, help="cores of each actor (%(default)s)")
    made.add_argument("--gpus", type=float, default=0, help="GPUs of each actor (%(default)s)")
    made.add_argument("--chunk", type=int, help=f"images that are written together (default: {CHUNK}, or fewer)")
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives are")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status: 0 also where single images have errors, whose rows say which."""
    given = parser(prog).parse_args(arguments)
    try:
        job, chunks = _begin(given)
        images = sum(len(chunk.items) for chunk in chunks)
        started = time.monotonic()
        errors = done = 0
        with tqdm(total=images, unit="image", disable=None) as bar:
            for progress in _run(job, chunks, given):
                done, errors = done + progress.images, errors + progress.errors
                bar.update(progress.images)
    except (OSError, ValueError) as error:
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
        archive_of(given.model, given.store).resolve(),
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
