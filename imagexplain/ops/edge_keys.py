"""Keys of clients at the front door: only their SHA-256 is kept, and nginx's map of them is made from the list."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from imagexplain.ops.edge_settings import EdgeError

LIST_FILE = "clients.json"
MAP_FILE = "clients.map"
KEY_BYTES = 32
"""Random bytes of a key: too many to be guessed, so that a plain SHA-256 hides them."""

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ClientKey:
    """A key that a client has.

    Attributes:
        client: Name of the client, for logs and limits; all its keys share them.
        sha256: Sum of the key, in hexadecimal digits.
        added: Time of its making, in UTC.
    """

    client: str
    sha256: str
    added: str


def listed(folder: Path) -> list[ClientKey]:
    """All keys, the oldest first. Raises EdgeError if the list is damaged."""
    path = folder / LIST_FILE
    try:
        return [ClientKey(**entry) for entry in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise EdgeError(f"{path}: cannot be read: {error}") from None


def add(folder: Path, client: str) -> str:
    """A new key of a client, beside those that it has; it cannot be shown again.

    Args:
        folder: Directory of the front door's state.
        client: Name of letters, digits, dots, hyphens and underscores.

    Raises:
        EdgeError: no such name, or the list cannot be written.
    """
    if not _CLIENT.fullmatch(client):
        raise EdgeError(f"client: wanted 1 to 64 letters, digits, dots, hyphens or underscores, got {client!r:.80}")
    key = secrets.token_urlsafe(KEY_BYTES)
    with _alone(folder):
        added = datetime.now(UTC).isoformat(timespec="seconds")
        _write(folder, [*listed(folder), ClientKey(client, hashlib.sha256(key.encode()).hexdigest(), added)])
    return key


def withdraw(folder: Path, client: str, *, but_newest: bool = False) -> int:
    """Withdraw a client's keys, or all of them but the newest, and return how many these were.

    Raises:
        EdgeError: the client has no key, or the list cannot be written.
    """
    with _alone(folder):
        keys = listed(folder)
        own = [key for key in keys if key.client == client]
        if not own:
            known = ", ".join(dict.fromkeys(key.client for key in keys)) or "none"
            raise EdgeError(f"client: {client!r:.80} has no key; clients that have one: {known}")
        gone = own[:-1] if but_newest else own
        _write(folder, [key for key in keys if key not in gone])
    return len(gone)


def write_map(folder: Path) -> Path:
    """Write nginx's map of the keys, and return its file."""
    with _alone(folder):
        _write_map(folder, listed(folder))
    return folder / MAP_FILE


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _write(folder: Path, keys: list[ClientKey]) -> None:
    try:
        write_private(folder / LIST_FILE, json.dumps([asdict(key) for key in keys], indent=2) + "\n")
        _write_map(folder, keys)
    except OSError as error:
        raise EdgeError(f"the clients' keys cannot be written to {folder}: {error}") from None


def _write_map(folder: Path, keys: list[ClientKey]) -> None:
    write_private(folder / MAP_FILE, "".join(f'"{key.sha256}" "{key.client}";\n' for key in keys))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change the list."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise EdgeError(f"{folder}: cannot be written: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
