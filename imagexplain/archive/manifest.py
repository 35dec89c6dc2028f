"""The manifest of an archive: its place, and the sums of the archive's files in it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import cast

MANIFEST = "MAR-INF/MANIFEST.json"
HASHES = "sha256"
"""Field with the SHA-256 of each other file of the archive, by its name; TorchServe does not read it."""

METHODS_FILE = "methods.json"
"""Names of the supported methods, in an archive. Without reasons: their numbers may differ between machines."""


def sha256_of(archive: zipfile.ZipFile, name: str) -> str:
    """The SHA-256 of a file in an archive, in hexadecimal digits."""
    with archive.open(name) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
