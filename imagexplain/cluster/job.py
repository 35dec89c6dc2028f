"""A job that explains the images of a data set: chunk by chunk, with a row in the table for each image.

A chunk is computed by :func:`explain_chunk`, wherever that is: here one after another, or by the actors of
:mod:`imagexplain.cluster.ray_job`. It writes what it has found before it says so, under a name that follows from its
images alone, so that a chunk that is computed twice is in the table once.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import msgspec
from safetensors import safe_open

from imagexplain.api.request import JSON, SAFETENSORS, Kind
from imagexplain.cluster import lists, table
from imagexplain.cluster.explainer import Explainer
from imagexplain.cluster.inputs import Item, read
from imagexplain.cluster.lists import Chunk
from imagexplain.errors import RequestError
from imagexplain.serving.messages import Response

SUMMARY = f"{SAFETENSORS}; summary=true"
TABLE = "table"
MAPS = "maps"
SETTINGS = "job.json"


INPUTS = "inputs"

CHUNK = 64
"""Number of images that are computed and written together, where the data set is large enough."""

CHUNKS_OF_WORKER = 8
"""Number of chunks that each worker gets of a small data set, at least, so that none waits long for the last."""

Masks = tuple[bytes | Response, ...]
"""Segments that were found in the images of a chunk: each as the option ``masks`` has them, in JSON, or the refusal of
an image that has none."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JobStoppedError(OSError):
    """No room for what was found; the message says where, and how the job goes on."""


@dataclass(frozen=True)
class Job:
    """Settings of a job.

    Attributes:
        archive: Archive of the classifier.
        out: Folder of the table, the maps, the lists of images and the settings; on several machines one that they
            share.
        options: Options of the explanations, form-encoded.
        maps: Flag for the tensors of each explanation, as a safetensors file.
        segmenter: Archive of the segmenter whose instances are the groups, if any.
        segmenter_options: Options of its predictions, form-encoded.
        chunk: Number of images that are computed and written together, what a death loses of a worker's time; if not
            given, :data:`CHUNK`, or fewer of a small data set. A job that goes on has that with which it began.
        workers: Number of workers that a small data set is cut for.
    """

    archive: Path
    out: Path
    options: str = ""
    maps: bool = False
    segmenter: Path | None = None
    segmenter_options: str = ""
    chunk: int | None = None
    workers: int = 1


@dataclass(frozen=True)
class Progress:
    """Numbers of the images that a chunk had, and of those that have an error in place of an explanation."""

    images: int
    errors: int


def begin(job: Job, inputs: Iterable[Item]) -> list[Chunk]:
    """Begin a job, or go on with one that stopped; the chunks that have no rows yet.

    The images are listed on the disk before any is explained; of those that a job which goes on has listed, only new
    ones are added. So each run has the same chunks, and an actor that a driver left behind writes nothing that the next
    driver's actors do not write under the same name.

    Raises:
        ValueError: a folder that holds another job, two images of one id, or a damaged table.
        JobStoppedError: no room.
        OSError: an input that cannot be read.
    """
    settings = _settings(job)
    path = job.out / SETTINGS
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        wanted = {**settings, **({} if job.chunk is None else {"chunk": job.chunk})}
        known = sorted(name for name in wanted if name in settings or name in there)
        if other := [name for name in known if there.get(name) != wanted[name]]:
            given = ", ".join(f"{name} {there.get(name)!r}, not {wanted[name]!r}" for name in other)
            raise ValueError(f"{job.out}: another job is there, with {given}: give another folder")
        chunk = there.get("chunk")
    elif job.out.exists() and any(job.out.iterdir()):
        raise ValueError(f"{job.out}: wanted an empty folder, or one of a job that stopped")
    else:
        chunk = None
    with _room(job):
        job.out.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, settings)  # so that the folder is known as this job's if it stops before it is listed
        for folder in (INPUTS, TABLE, *([MAPS] if job.maps else [])):
            (job.out / folder).mkdir(exist_ok=True)
        images = lists.extend(job.out / INPUTS, inputs)
        if chunk is None:
            chunk = job.chunk or max(1, min(CHUNK, images // (CHUNKS_OF_WORKER * job.workers)))
            _write(path, {**settings, "chunk": chunk})
    done = table.finished(job.out / TABLE)
    left: list[Chunk] = []
    for own, name in lists.chunks(job.out / INPUTS, chunk):
        if name in done:
            done.remove(name)
        else:
            left.append(own)
    if done:
        part = job.out / TABLE / f"{min(done)}.parquet"
        raise ValueError(f"{part}: wanted a part of this job's table, got other images: move it away")
    return left


def load_explainer(job: Job) -> Explainer:
    """The model that a job explains.

    Raises:
        ValueError: an archive that is no classifier's and no segmenter's, or is damaged, or options that it refuses.
    """
    explainer = Explainer.load(job.archive, "classifier", "segmenter")
    explainer.check_options("explanation", SUMMARY if job.maps else JSON, job.options)
    return explainer


def load_segmenter(job: Job) -> Explainer:
    """The model whose instances are the groups of a job that has such.

    Raises:
        ValueError: an archive that is no segmenter's, or is damaged, or options that it refuses.
    """
    assert job.segmenter is not None
    segmenter = Explainer.load(job.segmenter, "segmenter")
    segmenter.check_options("prediction", JSON, job.segmenter_options)
    return segmenter


def find_segments(segmenter: Explainer, job: Job, chunk: Chunk) -> Masks:
    """The instances that the segmenter finds in each image of a chunk."""
    images = lists.images_of(job.out / INPUTS, chunk)
    return tuple(_masks(answer) for _, answer in _answers(segmenter, images, "prediction", JSON, job.segmenter_options))


def explain_chunk(explainer: Explainer, job: Job, chunk: Chunk, masks: Masks | None = None) -> Progress:
    """Explain the images of a chunk, and write their rows, and their maps before them.

    Args:
        explainer: Model.
        job: Settings of the job.
        chunk: Chunk, as :func:`begin` returns it.
        masks: Segments of each image, as :func:`find_segments` returns them.

    Raises:
        JobStoppedError: no room for what was found; nothing of the chunk is in the table then.
        OSError: what was found cannot be written for another reason, or the list is gone.
    """
    rows: list[dict[str, Any]] = []
    images = lists.images_of(job.out / INPUTS, chunk)
    answers = _answers(explainer, images, "explanation", SUMMARY if job.maps else JSON, job.options, masks)
    with _room(job):
        for item, (size, answer) in zip(images, answers, strict=True):
            maps, told = None, answer.body
            if answer.media_type == SAFETENSORS:
                maps = f"{MAPS}/{table.digest([item.id])}.safetensors"
                with table.written_whole(job.out / maps) as own:
                    own.write_bytes(answer.body)
                with safe_open(job.out / maps, "pt") as file:
                    told = file.metadata()["result"].encode()
            rows.append(table.row(item, size, json.loads(told), maps))
        table.write_part(job.out / TABLE, rows)
    return Progress(len(rows), sum("error" in one for one in rows))


def run_here(job: Job, chunks: Iterable[Chunk]) -> Iterator[Progress]:
    """Compute chunks in this process, one after another; yields the progress of each.

    Raises:
        ValueError: an archive that is no classifier's or no segmenter's, or is damaged, or options that it refuses.
        JobStoppedError: no room for what was found. The job goes on with the next run.
    """
    explainer = load_explainer(job)
    segmenter = None if job.segmenter is None else load_segmenter(job)
    for chunk in chunks:
        masks = None if segmenter is None else find_segments(segmenter, job, chunk)
        yield explain_chunk(explainer, job, chunk, masks)


def _answers(
    explainer: Explainer, images: Sequence[Item], kind: Kind, accept: str, options: str, masks: Masks | None = None
) -> Iterator[tuple[int | None, Response]]:
    """Yield the size in bytes of each image and the answer to it; no more than a batch of them is held."""
    for start in range(0, len(images), explainer.batch):
        batch = slice(start, start + explainer.batch)
        photos = list(read(images[batch], explainer.worker.limits.max_bytes))
        segments = masks[batch] if masks else (None,) * len(photos)
        asked = [_parts(photo, own) for photo, own in zip(photos, segments, strict=True)]
        parts = [one for one in asked if not isinstance(one, Response)]
        answered = iter(explainer.answer(parts, kind, accept, options))
        for photo, one in zip(photos, asked, strict=True):
            size = len(photo) if isinstance(photo, bytes) else None
            yield size, one if isinstance(one, Response) else next(answered)


def _parts(photo: bytes | OSError, masks: bytes | Response | None) -> dict[str, bytes] | Response:
    """The parts of a request, or the answer where an image cannot be asked for."""
    if isinstance(photo, OSError):
        refusal = RequestError(400, "image", f"cannot be read: {photo.strerror or photo}")
        return Response(refusal.status, JSON, refusal.body())
    if isinstance(masks, Response):
        return masks
    return {"image": photo} if masks is None else {"image": photo, "masks": masks}


def _masks(answer: Response) -> bytes | Response:
    """The instances of a prediction as the option masks takes them, or the refusal of one."""
    if answer.status != 200:
        return answer
    return msgspec.json.encode(json.loads(answer.body)["detections"])


def _settings(job: Job) -> dict[str, Any]:
    """The settings by which a folder is known to be of this job: all that its rows depend on."""
    return {
        "archive": _sha256(job.archive),
        "options": job.options,
        "maps": job.maps,
        "segmenter": None if job.segmenter is None else _sha256(job.segmenter),
        "segmenter_options": job.segmenter_options,
    }


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    with table.written_whole(path) as own:
        own.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _room(job: Job) -> Iterator[None]:
    """Tell of a disk that is full how the job goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        kept = "what is finished is kept: make room, and the same command goes on"
        raise JobStoppedError(f"{job.out}: {os.strerror(error.errno)}; {kept}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
