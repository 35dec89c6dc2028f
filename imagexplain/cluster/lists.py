"""The lists of a job's images: files of one image a line, cut into chunks that are explained and written together.

A list is written once and whole, before any of its images is explained, so that every run of a job has the same chunks,
and whoever computes one reads its lines alone. Images that came later are another list. While one is made, 16 bytes are
held of each image: the digest of its id, which tells whether it was listed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from imagexplain.cluster import table
from imagexplain.cluster.inputs import InputError, Item

DIGEST_BYTES = 16
BATCH = 1024
"""Number of images that are looked up together."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Images that are explained and written together: lines of a list.

    Attributes:
        file: Name of the list.
        offset: Place of the first line's first byte.
        images: Number of lines.
    """

    file: str
    offset: int
    images: int


def extend(folder: Path, inputs: Iterable[Item]) -> int:
    """List the images that are in no list yet.

    Args:
        folder: Folder of the lists.
        inputs: Images; none is held.

    Returns:
        Number of images in all lists.

    Raises:
        InputError: two new images of one id, or one whose name is not UTF-8.
        OSError: no room, or no such folder; no list is written then.
    """
    files = _files(folder)
    listed, fresh = bytearray(), bytearray()
    for item in chain.from_iterable(map(_read, files)):
        listed += _digest(item.id)
    known = _sorted(listed)
    lines = _lines(inputs, known, fresh)
    first = next(lines, None)
    if first is None:
        return known.size
    with table.written_whole(folder / f"{len(files):04}.jsonl") as own:
        with own.open("wb") as file:
            file.writelines(chain([first], lines))
        digests = _sorted(fresh)
        if (twice := digests[1:][digests[1:] == digests[:-1]]).size:
            name = next(item.id for item in _read(own) if _digest(item.id).rstrip(b"\0") == twice[0])
            raise InputError(f"{name}: wanted each image once, got it {'' if twice.size == 1 else 'and others '}twice")
    return known.size + digests.size


def chunks(folder: Path, size: int) -> Iterator[tuple[Chunk, str]]:
    """Yield the chunks of all lists, and the name of the part of the table that each becomes.

    Args:
        folder: Folder of the lists.
        size: Number of images of a chunk; a list's last may have fewer.
    """
    for path in _files(folder):
        with path.open("rb") as file:
            offset = 0
            while lines := list(islice(file, size)):
                ids = (_item(line).id for line in lines)
                yield Chunk(path.name, offset, len(lines)), table.digest(ids)
                offset += sum(map(len, lines))


def images_of(folder: Path, chunk: Chunk) -> list[Item]:
    """The images of a chunk."""
    with (folder / chunk.file).open("rb") as file:
        file.seek(chunk.offset)
        return [_item(line) for line in islice(file, chunk.images)]


def _lines(inputs: Iterable[Item], known: NDArray[np.bytes_], fresh: bytearray) -> Iterator[bytes]:
    """Yield the lines of images whose digests are not known; their digests are added to what is fresh."""
    images = iter(inputs)
    while batch := list(islice(images, BATCH)):
        digests = [_digest(item.id) for item in batch]
        for item, digest, is_known in zip(batch, digests, _among(known, digests), strict=True):
            if not is_known:
                fresh += digest
                yield msgspec.json.encode(item) + b"\n"


def _among(known: NDArray[np.bytes_], digests: Sequence[bytes]) -> list[bool]:
    """Tell of digests which are among sorted ones."""
    if known.size == 0:
        return [False] * len(digests)
    wanted = np.array(digests, known.dtype)
    place = np.searchsorted(known, wanted)
    found: list[bool] = (known[np.minimum(place, known.size - 1)] == wanted).tolist()
    return found


def _sorted(digests: bytearray) -> NDArray[np.bytes_]:
    """Digests as a sorted array, in their own memory."""
    found = np.frombuffer(digests, f"S{DIGEST_BYTES}")
    found.sort()
    return found


def _digest(name: str) -> bytes:
    try:
        return blake2b(name.encode(), digest_size=DIGEST_BYTES).digest()
    except UnicodeEncodeError:
        raise InputError(f"{name!r}: wanted a name in UTF-8, as the table has them") from None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _read(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        yield from map(_item, file)


def _item(line: bytes) -> Item:
    return msgspec.json.decode(line, type=Item)
