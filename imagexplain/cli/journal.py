"""A folder's record of the answers that are done: file, what was asked for, and the sum of what was written."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from imagexplain.client.answers import write
from imagexplain.client.errors import ClientError

NAME = "manifest.jsonl"


class FolderError(ClientError):
    """A folder into which nothing can be written, or another command writes."""


class Journal:
    """The record of a folder, a line of JSON for each answer; the last line of a file counts.

    A line is written once its file is, so that whatever ends a command leaves only answers that are whole, or no line.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = (folder / NAME).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise FolderError(f"{folder}: another command writes its answers there") from None
        self._entries = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def has(self, name: str, fingerprint: str) -> bool:
        """Tell whether a file is the answer to that request, and as it was written."""
        entry = self._entries.get(name)
        if entry is None or entry.get("fingerprint") != fingerprint:
            return False
        try:
            return _sum(self._folder.joinpath(name).read_bytes()) == entry.get("sha256")
        except OSError:
            return False

    def add(self, name: str, fingerprint: str, data: bytes, about: Mapping[str, Any]) -> None:
        """Write an answer's file, and then its line. Raises FolderError."""
        entry = {"file": name, "fingerprint": fingerprint, "sha256": _sum(data), "bytes": len(data), **about}
        try:
            write(self._folder / name, data)
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise FolderError(f"{self._folder / name} cannot be written: {error.strerror or error}") from None
        self._entries[name] = entry

    def _read(self) -> dict[str, dict[str, Any]]:
        self._file.seek(0)
        data = self._file.read()
        if data and not data.endswith(b"\n"):  # the last line broke off
            self._file.write(b"\n")
        entries = {}
        for line in data.splitlines():
            try:
                entry = json.loads(line)
                entries[str(entry["file"])] = entry
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return entries


def fingerprint(about: Mapping[str, Any], *files: bytes) -> str:
    """SHA-256 of a request: what it asks for, and the files that it sends.

    Example:
        >>> from imagexplain.cli.journal import fingerprint
        >>> fingerprint({"steps": 20}, b"photo") == fingerprint({"steps": 21}, b"photo")
        False
    """
    told = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for file in files:
        told.update(hashlib.sha256(file).digest())
    return told.hexdigest()


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
