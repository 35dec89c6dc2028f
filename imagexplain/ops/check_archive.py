"""Checks of a model archive before TorchServe loads it."""

from __future__ import annotations

import importlib.util
import json
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from imagexplain.archive.spec import DEFAULT_VERSION, SPEC_FILE, CaptionerSpec, ClassifierSpec, ModelSpec, SegmenterSpec

MANIFEST = "MAR-INF/MANIFEST.json"
SPECS: dict[str, type[ModelSpec]] = {
    "classifier": ClassifierSpec,
    "segmenter": SegmenterSpec,
    "captioner": CaptionerSpec,
}


class ArchiveError(ValueError):
    """A file that TorchServe could not serve; the message names it, and what is wrong with it."""


class Identity(NamedTuple):
    """Name and version of an archive's model, which only one archive of a server has."""

    name: str
    version: str


def check(archive: Path) -> Identity:
    """Name and version of the archive's model, once its contents are found whole.

    These are checksums, manifest, handler, settings and spec.

    Raises:
        ArchiveError: something is missing or damaged.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            damaged = content.testzip()
            if damaged is not None:
                raise ArchiveError(f"{archive} is damaged: {damaged} does not have its checksum")
            return _model(archive, content)
    except KeyError as error:
        raise ArchiveError(f"{archive} is not a model archive: {error.args[0]}") from None
    except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ArchiveError(f"{archive} is not a model archive: {error or type(error).__name__}") from None


def unpacked_bytes(archive: Path) -> int:
    """Bytes that the archive's files take on the disk."""
    with zipfile.ZipFile(archive) as content:
        return sum(entry.file_size for entry in content.infolist())


def _model(archive: Path, content: zipfile.ZipFile) -> Identity:
    about = _json(archive, MANIFEST, content).get("model")
    if not isinstance(about, dict):
        raise ArchiveError(f"{archive}: {MANIFEST}: model: wanted an object, got {about!r:.80}")
    for field in ("modelName", "handler"):
        if not isinstance(about.get(field), str) or not about[field]:
            raise ArchiveError(f"{archive}: {MANIFEST}: model.{field}: wanted a name, got {about.get(field)!r:.80}")
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
    return Identity(about["modelName"], str(about.get("modelVersion") or DEFAULT_VERSION))


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
