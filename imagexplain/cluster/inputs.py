"""Images of a data set: files of folders, globs and lists, members of tar shards, and rows of Parquet files.

An :class:`Item` says where an image is, and its id is unique in the job. Nothing is read but directories, the headers
of tar files and the ids of Parquet files until a worker asks for the bytes.
"""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of images among the files of a folder or a tar file; of those that are named, any is taken."""

ID_COLUMNS = ("path", "id", "name")
"""Columns of a Parquet file that may hold the ids of its images, the first that is there."""

BYTES_COLUMNS = ("bytes", "image")
"""Columns of a Parquet file that may hold its images: bytes, or structs with a field ``bytes``."""


class InputError(ValueError):
    """An input that is not there, or of which no images can be listed; the message names it."""


@dataclass(frozen=True)
class Item:
    """An image of a data set.

    Attributes:
        id: Name of the image in the job's table.
        path: File that holds it.
        offset: Place of its first byte in a tar file, or of its row in a row group.
        size: Number of its bytes, or None where only reading tells.
        row_group: Row group of a Parquet file.
        column: Column of a Parquet file.
    """

    id: str
    path: str
    offset: int = 0
    size: int | None = None
    row_group: int | None = None
    column: str | None = None


def items(inputs: Sequence[str]) -> Iterator[Item]:
    """List the images of inputs, in order.

    Args:
        inputs: Folders (all below them), globs, image files, ``.tar`` and ``.parquet`` files, and ``.txt`` files that
            list any of these, one on a line.

    Raises:
        InputError: an input that is not there, or holds no images that can be listed.
        OSError: a folder or a file that cannot be read.
    """
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = _of_folder(path)
        elif path.is_file():
            found = _of_file(path, named=True)
        elif names := sorted(glob.glob(given, recursive=True)):  # noqa: PTH207, a pattern may be absolute
            found = (one for name in names if not Path(name).is_dir() for one in _of_file(Path(name), named=True))
        else:
            raise InputError(f"{given}: wanted a folder, a file or a glob, got nothing there")
        first = next(found, None)
        if first is None:
            raise InputError(f"{given}: wanted images ({', '.join(IMAGES)}), got none")
        yield first
        yield from found


def read(chunk: Sequence[Item], limit: int) -> Iterator[bytes | OSError]:
    """Yield the bytes of images, or the error where one cannot be read.

    Args:
        chunk: Images, in the order of :func:`items`.
        limit: Number of bytes, above which only one more is read: enough to be refused.
    """
    table: tuple[str, int, pa.ChunkedArray] | None = None
    for item in chunk:
        try:
            if item.row_group is None:
                with Path(item.path).open("rb") as file:
                    file.seek(item.offset)
                    most = limit + 1 if item.size is None else min(item.size, limit + 1)
                    yield file.read(most)
                continue
            if table is None or table[:2] != (item.path, item.row_group):
                with pq.ParquetFile(item.path) as parquet:
                    column = parquet.read_row_group(item.row_group, columns=[item.column]).column(0)
                table = (item.path, item.row_group, column)
            value = table[2][item.offset].as_py()
            value = value.get("bytes") if isinstance(value, dict) else value
            yield value if isinstance(value, bytes) else OSError("wanted bytes, got none")
        except (OSError, pa.ArrowException) as error:
            yield error if isinstance(error, OSError) else OSError(f"{item.path}: {error}")


def _of_folder(folder: Path) -> Iterator[Item]:
    def refuse(error: OSError) -> None:
        raise error

    for directory, inner, names in os.walk(folder, onerror=refuse):
        inner.sort()
        for name in sorted(names):
            yield from _of_file(Path(directory, name), named=False)


def _of_file(path: Path, *, named: bool) -> Iterator[Item]:
    """The images of a file; of files that were not named, images alone."""
    suffix = path.suffix.lower()
    if suffix in IMAGES or (named and suffix not in (".tar", ".parquet", ".txt")):
        yield Item(str(path), str(path), 0, path.stat().st_size if path.exists() else None)
    elif suffix == ".tar":
        yield from _of_tar(path)
    elif suffix == ".parquet":
        yield from _of_parquet(path)
    elif suffix == ".txt" and named:
        with path.open(encoding="utf-8") as lines:
            for line in filter(None, map(str.strip, lines)):
                yield from items([str(path.parent / line)])


def _of_tar(path: Path) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all
                if member.isfile() and Path(member.name).suffix.lower() in IMAGES:
                    yield Item(f"{path}/{member.name}", str(path), member.offset_data, member.size)
    except tarfile.TarError as error:
        raise InputError(f"{path}: wanted a tar file without compression, got {error}") from None


def _of_parquet(path: Path) -> Iterator[Item]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = next((name for name in BYTES_COLUMNS if name in names), None)
            if column is None:
                wanted = f"wanted a column {' or '.join(BYTES_COLUMNS)}"
                raise InputError(f"{path}: {wanted} with the bytes of images, got {', '.join(names)}")
            ids = next((name for name in ID_COLUMNS if name in names), None)
            row = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                own = None if ids is None else file.read_row_group(group, columns=[ids]).column(0).to_pylist()
                for place in range(rows):
                    name = f"{path}#{row + place}" if own is None else f"{path}#{own[place]}"
                    yield Item(name, str(path), place, None, group, column)
                row += rows
    except pa.ArrowException as error:
        raise InputError(f"{path}: wanted a Parquet file, got {error}") from None
