"""A job that explains the images of a data set: chunk by chunk, with a row in the table for each image.

A chunk is computed by :func:`explain_chunk`, wherever that is: here one after another, or by the actors of
:mod:`imagexplain.cluster.ray_job`. It writes what it has found before it says so, under a name that follows from its
images alone, so that a chunk that is computed twice is in the table once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import msgspec
from safetensors import safe_open

from imagexplain.api.request import JSON, SAFETENSORS, Kind
from imagexplain.cluster import table
from imagexplain.cluster.explainer import Explainer
from imagexplain.cluster.inputs import Item, read
from imagexplain.errors import RequestError
from imagexplain.serving.messages import Response

SUMMARY = f"{SAFETENSORS}; summary=true"
TABLE = "table"
MAPS = "maps"
SETTINGS = "job.json"


@dataclass(frozen=True)
class Job:
    """Settings of a job.

    Attributes:
        archive: Archive of the classifier.
        out: Folder of the table, the maps and the settings; on several machines one that they share.
        options: Options of the explanations, form-encoded.
        maps: Flag for the tensors of each explanation, as a safetensors file.
        segmenter: Archive of the segmenter whose instances are the groups, if any.
        segmenter_options: Options of its predictions, form-encoded.
        chunk: Number of images that are computed and written together; what a death loses of a worker's time. A job
            that goes on keeps the size that it began with.
    """

    archive: Path
    out: Path
    options: str = ""
    maps: bool = False
    segmenter: Path | None = None
    segmenter_options: str = ""
    chunk: int = 64


@dataclass(frozen=True)
class Chunk:
    """Images that are explained and written together, and the segments that were found in them, where they were.

    Attributes:
        items: Images.
        masks: Masks as an option has them, in JSON, or the refusal of an image that has none.
    """

    items: tuple[Item, ...]
    masks: tuple[bytes | Response, ...] | None = None


@dataclass(frozen=True)
class Progress:
    """Numbers of the images that a chunk had, and of those that have an error in place of an explanation."""

    images: int
    errors: int


def begin(job: Job, inputs: Iterable[Item]) -> list[Chunk]:
    """Begin a job, or go on with one that stopped; the chunks that have no rows yet.

    All images are cut into chunks, of the size of the first run, before those that are done are left out: so each run
    has the same chunks, and an actor that a driver left behind writes nothing that the next driver's actors do not
    write under the same name.

    Raises:
        ValueError: a folder that holds another job, two images of one id, or a damaged table.
        OSError: no room, or no such folder.
    """
    wanted, size = _settings(job), job.chunk
    path = job.out / SETTINGS
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        size = there.pop("chunk")
        other = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
        if other:
            given = ", ".join(f"{name} {there.get(name)!r}, not {wanted.get(name)!r}" for name in other)
            raise ValueError(f"{job.out}: another job is there, with {given}: give another folder")
    elif job.out.exists() and any(job.out.iterdir()):
        raise ValueError(f"{job.out}: wanted an empty folder, or one of a job that stopped")
    for folder in (TABLE, *([MAPS] if job.maps else [])):
        (job.out / folder).mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with table.written_whole(path) as own:
            own.write_text(json.dumps({**wanted, "chunk": size}, indent=2) + "\n", encoding="utf-8")
    done = table.finished(job.out / TABLE)
    items = list(inputs)
    twice = [name for name, times in Counter(item.id for item in items).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]}: wanted each image once, got it {'' if len(twice) == 1 else 'and others '}twice")
    cut = (items[start : start + size] for start in range(0, len(items), size))
    left = (tuple(item for item in chunk if item.id not in done) for chunk in cut)
    return [Chunk(own) for own in left if own]


def find_segments(segmenter: Explainer, job: Job, chunk: Chunk) -> Chunk:
    """The chunk with the instances that the segmenter finds in each of its images."""
    found = _answers(segmenter, chunk, "prediction", JSON, job.segmenter_options)
    return Chunk(chunk.items, tuple(_masks(answer) for _, answer in found))


def explain_chunk(explainer: Explainer, job: Job, chunk: Chunk) -> Progress:
    """Explain the images of a chunk, and write their rows, and their maps before them.

    Raises:
        OSError: what was found cannot be written; nothing of the chunk is in the table then.
    """
    rows: list[dict[str, Any]] = []
    answers = _answers(explainer, chunk, "explanation", SUMMARY if job.maps else JSON, job.options)
    for item, (size, answer) in zip(chunk.items, answers, strict=True):
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
        ValueError: an archive that is no classifier's or no segmenter's, or is damaged.
        OSError: what was found cannot be written. The job goes on with the next run.
    """
    explainer = Explainer.load(job.archive, "classifier", "segmenter")
    segmenter = None if job.segmenter is None else Explainer.load(job.segmenter, "segmenter")
    for chunk in chunks:
        yield explain_chunk(explainer, job, chunk if segmenter is None else find_segments(segmenter, job, chunk))


def _answers(
    explainer: Explainer, chunk: Chunk, kind: Kind, accept: str, options: str
) -> Iterator[tuple[int | None, Response]]:
    """Yield the size in bytes of each image and the answer to it; no more than a batch of them is held."""
    masks = chunk.masks or (None,) * len(chunk.items)
    for start in range(0, len(chunk.items), explainer.batch):
        batch = slice(start, start + explainer.batch)
        photos = list(read(chunk.items[batch], explainer.worker.limits.max_bytes))
        asked = [_parts(photo, own) for photo, own in zip(photos, masks[batch], strict=True)]
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
