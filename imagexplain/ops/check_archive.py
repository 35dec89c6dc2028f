"""Checks of a model archive before TorchServe loads it.

An archive that is built here carries the SHA-256 of its files in its manifest, and is refused when a file is changed,
added or missing. The sums tell damage and carelessness, not who built it: whoever can write to the store can write
sums, too. Archives of others, which torch-model-archiver makes without sums, are served as TorchServe serves them, by
the checksums of their zip file alone; those with a spec of ours are not, for they had sums when they were built.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from imagexplain.archive.manifest import HASHES, MANIFEST, sha256_of
from imagexplain.archive.spec import DEFAULT_VERSION, SPEC_FILE, CaptionerSpec, ClassifierSpec, ModelSpec, SegmenterSpec

SPECS: dict[str, type[ModelSpec]] = {
    "classifier": ClassifierSpec,
    "segmenter": SegmenterSpec,
    "captioner": CaptionerSpec,
}


_LOCAL_HEADER = 30  # bytes, before the name
_IN_EXTRA = 0xFFFFFFFF  # a size that stands in the extra field instead


class ArchiveError(ValueError):
    """A file that TorchServe could not serve; the message names it, and what is wrong with it."""


class Identity(NamedTuple):
    """Name and version of an archive's model, which only one archive of a server has."""

    name: str
    version: str


def check(archive: Path) -> Identity:
    """Name and version of the archive's model, once its contents are found whole.

    These are checksums, the manifest and its sums, handler, settings and spec.

    Raises:
        ArchiveError: something is missing, damaged, or not what was built.
    """
    with _opened(archive) as content:
        names = content.namelist()
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise ArchiveError(f"{archive}: {twice} is there twice")
        damaged = content.testzip()
        if damaged is not None:
            raise ArchiveError(f"{archive} is damaged: {damaged} does not have its checksum")
        _check_sums(archive, content)
        return _model(archive, content)


def identify(archive: Path) -> Identity:
    """Name and version of the archive's model, from its manifest alone.

    Raises:
        ArchiveError: no archive, or a manifest that tells no name.
    """
    with _opened(archive) as content:
        return _identity(_about(archive, content))


def has_sums(archive: Path) -> bool:
    """Tell whether an archive carries the SHA-256 of its files. Raises ArchiveError for what is no archive."""
    with _opened(archive) as content:
        return HASHES in _json(archive, MANIFEST, content)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as content:
            yield content
    except KeyError as error:
        raise ArchiveError(f"{archive} is not a model archive: {error.args[0]}") from None
    except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ArchiveError(f"{archive} is not a model archive: {error or type(error).__name__}") from None


def unpacked_bytes(archive: Path) -> int:
    """Bytes that the archive's files take on the disk."""
    with zipfile.ZipFile(archive) as content:
        return sum(entry.file_size for entry in content.infolist())


def _check_sums(archive: Path, content: zipfile.ZipFile) -> None:
    sums = _json(archive, MANIFEST, content).get(HASHES)
    files = {name for name in content.namelist() if name != MANIFEST}
    if sums is None and SPEC_FILE not in files:
        return
    if not isinstance(sums, dict):
        wanted = "wanted the SHA-256 of each file"
        raise ArchiveError(f"{archive}: {MANIFEST}: {HASHES}: {wanted}, got {sums!r:.80}; build the archive anew")
    for name in sorted(sums.keys() | files):
        if name not in files:
            raise ArchiveError(f"{archive}: {name} is missing: the archive was built with it")
        if name not in sums:
            raise ArchiveError(f"{archive}: {name} was added: the archive was built without it")
        if sha256_of(content, name) != sums[name]:
            raise ArchiveError(f"{archive}: {name} was changed: its SHA-256 is not that with which it was built")
    _check_no_gaps(archive, content)


def _check_no_gaps(archive: Path, content: zipfile.ZipFile) -> None:
    """Refuse a file that the archive's directory does not list: TorchServe unpacks by the files' own headers."""
    entries = sorted(content.infolist(), key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries[1:]), content.start_dir]
    with archive.open("rb") as file:
        position = 0
        for entry, end in zip(entries, ends, strict=True):
            file.seek(entry.header_offset)
            packed, size, name, extra = struct.unpack("<18xIIHH", file.read(_LOCAL_HEADER))
            same = file.read(name) == entry.orig_filename.encode() and (packed, size) in (
                (entry.compress_size, entry.file_size),
                (_IN_EXTRA, _IN_EXTRA),
            )
            length = _LOCAL_HEADER + name + extra + entry.compress_size
            if not same or entry.header_offset != position or position + length != end:
                raise ArchiveError(f"{archive}: there is more at {entry.filename} than the archive's directory lists")
            position = end


def _about(archive: Path, content: zipfile.ZipFile) -> dict[str, Any]:
    about = _json(archive, MANIFEST, content).get("model")
    if not isinstance(about, dict):
        raise ArchiveError(f"{archive}: {MANIFEST}: model: wanted an object, got {about!r:.80}")
    for field in ("modelName", "handler"):
        if not isinstance(about.get(field), str) or not about[field]:
            raise ArchiveError(f"{archive}: {MANIFEST}: model.{field}: wanted a name, got {about.get(field)!r:.80}")
    return about


def _identity(about: dict[str, Any]) -> Identity:
    return Identity(about["modelName"], str(about.get("modelVersion") or DEFAULT_VERSION))


def _model(archive: Path, content: zipfile.ZipFile) -> Identity:
    about = _about(archive, content)
    files = set(content.namelist())
    if not _has_handler(about["handler"], files):
        raise ArchiveError(f"{archive}: {MANIFEST}: model.handler: {about['handler']} is not in the archive")
    for field in ("configFile", "serializedFile", "modelFile"):
        file = about.get(field)
        if file is not None and file not in files:
            raise ArchiveError(f"{archive}: {MANIFEST}: model.{field}: {file} is not in the archive")
    if "configFile" in about:
        _check_settings(archive, about["configFile"], content)
    if SPEC_FILE in files:
        _check_spec(archive, content)
    return _identity(about)


def _has_handler(handler: str, files: set[str]) -> bool:
    """Tell whether TorchServe finds the handler: a file or a module of the archive, or one of its own."""
    module = handler.partition(":")[0]
    path = PurePosixPath(module.removesuffix(".py").replace(".", "/"))
    if {module, f"{path}.py", f"{path}/__init__.py"} & files:
        return True
    spec = importlib.util.find_spec("ts")
    own = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else Path()
    return (own / "torch_handler" / f"{path}.py").is_file()


def _check_settings(archive: Path, file: str, content: zipfile.ZipFile) -> None:
    try:
        settings = yaml.safe_load(content.read(file))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArchiveError(f"{archive}: {file}: cannot be read as YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ArchiveError(f"{archive}: {file}: wanted fields and values, got {type(settings).__name__}")


def _check_spec(archive: Path, content: zipfile.ZipFile) -> None:
    handler = _json(archive, SPEC_FILE, content).get("handler", "classifier")
    if handler not in SPECS:
        wanted = f"wanted one of {', '.join(SPECS)}"
        raise ArchiveError(f"{archive}: {SPEC_FILE}: handler: {wanted}, got {handler!r:.80}")
    try:
        SPECS[handler].model_validate_json(content.read(SPEC_FILE))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "the whole"
        raise ArchiveError(f"{archive}: {SPEC_FILE}: {field}: {fault['msg']}; build the archive anew") from None


def _json(archive: Path, file: str, content: zipfile.ZipFile) -> dict[str, Any]:
    try:
        value = json.loads(content.read(file))
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{archive}: {file}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArchiveError(f"{archive}: {file}: wanted an object, got {type(value).__name__}")
    return value
