"""Small specs, and small archives that load in no time or do not load."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from imagexplain.archive.manifest import HASHES, MANIFEST
from imagexplain.archive.spec import DEFAULT_VERSION

WORKING = """
class Handler:
    def initialize(self, context):
        pass

    def handle(self, rows, context):
        return [b"fine" for _ in rows]
"""


def write(
    store: Path,
    name: str,
    handler: str = WORKING,
    runtime: str = "python",
    workers: int = 1,
    version: str = DEFAULT_VERSION,
    **settings: object,
) -> Path:
    """An archive of nothing but a handler; TorchServe refuses one with a runtime that it does not know.

    `settings` are TorchServe's of the model, such as ``responseTimeout``.
    """
    store.mkdir(parents=True, exist_ok=True)
    manifest = {
        "runtime": runtime,
        "model": {
            "modelName": name,
            "modelVersion": version,
            "handler": "handler.py",
            "configFile": "model-config.yaml",
        },
    }
    path = store / f"{name if version == DEFAULT_VERSION else f'{name}@{version}'}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
        archive.writestr("handler.py", handler)
        archive.writestr(
            "model-config.yaml", yaml.safe_dump({"minWorkers": workers, "maxWorkers": workers, **settings})
        )
    return path


def files_of(path: Path) -> dict[str, bytes]:
    """The files of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive of files as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def seal(path: Path) -> Path:
    """Give an archive's manifest the SHA-256 of its files, as the build does."""
    files = files_of(path)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != MANIFEST}
    manifest = json.loads(files[MANIFEST]) | {HASHES: sums}
    return pack(path, files | {MANIFEST: json.dumps(manifest).encode()})


SPEC: dict[str, Any] = {
    "name": "small",
    "architecture": "bit",
    "weights": "small.safetensors",
    "labels": ["cat", "dog"],
    "preprocess": {"size": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def write_spec(folder: Path, file: str = "small.yaml", **changes: Any) -> Path:
    """A spec file with weights beside it; a change to None leaves the field out."""
    (folder / "small.safetensors").touch()
    path = folder / file
    content = {field: value for field, value in {**SPEC, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content))
    return path


def archived(store: Path, folder: Path, name: str, version: str = "1.0") -> Path:
    """A sealed archive of an unpacked one."""
    path = write(store, name, version=version)
    files = files_of(path) | {file.name: file.read_bytes() for file in folder.iterdir()}
    return seal(pack(path, files))
