"""Builds the model archives: each spec in archive_specs/ becomes model_store/<name>.mar.

An archive holds handlers/, the weights as safetensors, the resolved spec and TorchServe's settings. The same inputs
give the same bytes; an archive whose inputs have not changed is not built again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from handlers.spec import (
    CONFIG_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    Archive,
    ClassifierSpec,
    ModelSpec,
    SegmenterSpec,
    SpecError,
    load,
    select,
)
from scripts.progress import say, with_progress

if TYPE_CHECKING:  # importing torch takes seconds, which an archive that is up to date does not need
    from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
SERVING_FILE = "model-config.yaml"
MANIFEST = "MAR-INF/MANIFEST.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


def main(arguments: list[str] | None = None) -> int:
    """Builds what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", type=Path, help="spec files (default: archive_specs/*.yaml)")
    parser.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives go")
    parser.add_argument("--force", action="store_true", help="build even what is up to date")
    options = parser.parse_args(arguments)
    try:
        build_all(options.specs or sorted((ROOT / "archive_specs").glob("*.yaml")), options.store, force=options.force)
    except (SpecError, OSError) as error:  # a full disk, or a store that cannot be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build_all(
    specs: list[Path], store: Path, *, force: bool = False, environ: Mapping[str, str] = os.environ
) -> list[Path]:
    """Builds every archive that the specs ask for and returns their paths.

    Raises SpecError naming file and field.
    """
    store.mkdir(parents=True, exist_ok=True)
    memory = store / ".variables.json"
    variables = _variables(specs, json.loads(memory.read_text()) if memory.is_file() else {}, environ)
    archives = select(specs, variables)
    if not archives:
        raise SpecError(f"no archive to build among {', '.join(map(str, specs)) or 'no specs'}")
    memory.write_text(json.dumps(variables, indent=2) + "\n")
    return [build(archive, store, force=force) for archive in archives]


def build(archive: Archive, store: Path, *, force: bool = False) -> Path:
    """Builds one archive, unless it stands in the store already, and returns its path."""
    name, target = archive.model.name, store / f"{archive.model.name}.mar"
    stamp, key = store / f".{name}.inputs", with_progress(f"{name}: reading", lambda: _inputs(archive))
    if not force and target.is_file() and stamp.is_file() and stamp.read_text() == f"{key} {_digest(target)}":
        say(f"{name}: up to date ({target})")
        return target
    started = time.perf_counter()
    say(f"{name}: building from {archive.weights}")
    with tempfile.TemporaryDirectory() as work:
        content, packed, final = Path(work, "content"), Path(work, "packed"), Path(work, "final.mar")
        for directory in (content, packed):
            directory.mkdir()
        with_progress(f"{name}: checking the weights", lambda: _stage(archive, content))
        with_progress(f"{name}: packing", lambda: _reproducible(_pack(archive.model, content, packed), final))
        partial = target.with_suffix(".partial")
        try:
            shutil.copyfile(final, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    stamp.write_text(f"{key} {_digest(target)}")
    say(f"{name}: {target} ({target.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - started:.1f} s)")
    return target


def model_config(model: ModelSpec) -> dict[str, Any]:
    """TorchServe's settings of the archive (`model-config.yaml`): seconds, and milliseconds for the batch delay.

    TorchServe runs a model with `deviceType: gpu` on the CPU where it finds no GPU.
    """
    serving = model.serving
    return {
        "minWorkers": serving.workers,
        "maxWorkers": serving.workers,
        "batchSize": serving.batch_size,
        "maxBatchDelay": serving.batch_delay_ms,
        "responseTimeout": serving.response_timeout_s,
        "startupTimeout": serving.startup_timeout_s,
        "maxRetryTimeoutInSec": serving.retry_timeout_s,
        "jobQueueSize": serving.queue_size,
        "deviceType": serving.device,
    }


def _variables(specs: list[Path], before: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a user's files: those of this build, and those of the builds before.

    So `make archives LANET_WEIGHTS=...` holds for the `make serve` after it, until the variable is given again; given
    empty, it is forgotten.
    """
    sources = [source for path in specs for source in load(path).sources]
    named = {source.environment: source for source in sources if source.environment}
    now = {name: source.from_environment(environ) for name, source in named.items() if name in environ}
    kept = {name: before[name] for name in sorted(named) if name in before and name not in now}
    for name, file in kept.items():
        say(f"{name} stays {file} (make archives {name}= forgets it)")
    return kept | {name: str(file) for name, file in now.items() if file}


def _stage(archive: Archive, content: Path) -> None:
    """Writes the files of the archive, as the archiver wants them, into an empty directory."""
    _package(content / "extra" / "handlers")
    (content / "extra" / SPEC_FILE).write_text(archive.model.to_json(), encoding="utf-8")
    (content / SERVING_FILE).write_text(yaml.safe_dump(model_config(archive.model), sort_keys=True), encoding="utf-8")
    _weights(archive, content / WEIGHTS_FILE)


def _package(target: Path) -> None:
    shutil.copytree(ROOT / "handlers", target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def _weights(archive: Archive, target: Path) -> None:
    """Converts the checkpoint to safetensors, after every key and the number of classes were found to fit."""
    from safetensors.torch import save_file

    from handlers.models import checkpoint

    try:
        state = _state(archive)
        config = _config(archive, target.parent / "extra")
        classes = _classes(archive.model, state, config)
    except (checkpoint.CheckpointError, ValueError, ImportError) as error:
        raise SpecError(f"{archive.source}: weights: {archive.weights}: {error}") from None
    if classes not in (None, len(archive.model.labels)):
        given = len(archive.model.labels)
        raise SpecError(f"{archive.source}: labels: the weights have {classes} classes, given are {given} labels")
    save_file({key: _smallest(state[key]).contiguous() for key in sorted(state)}, target)


def _state(archive: Archive) -> Mapping[str, Tensor]:
    """The checkpoint's tensors; mmdet's own hold a log and more beside them, which is dropped unread."""
    from handlers.models import checkpoint, torch_file

    if archive.config is not None and archive.weights.suffix in (".pth", ".pt"):
        return torch_file.read(archive.weights)
    return checkpoint.read(archive.weights)


def _config(archive: Archive, extra: Path) -> dict[str, Any] | None:
    """The resolved configuration of an mmdet model, which goes into the archive; runs the file if it is Python."""
    if archive.config is None:
        return None
    from handlers.models.mmdet_config import resolve

    config = resolve(archive.config)
    (extra / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return config


def _classes(
    model: ClassifierSpec | SegmenterSpec, state: Mapping[str, Tensor], config: Mapping[str, Any] | None
) -> int | None:
    """The number of classes of the network that the weights make; raises what building the network raises."""
    import torch

    from handlers import engines, models

    if isinstance(model, SegmenterSpec):
        return engines.build(model, state, config, torch.device("cpu")).classes
    network = models.build(model.architecture, state, model.arguments)
    with torch.no_grad():
        return int(network(torch.zeros(1, 3, *model.preprocess.size)).shape[-1])


def _smallest(tensor: Tensor) -> Tensor:
    """The tensor in half precision where that loses nothing, as with the demonstration weights."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.to(tensor.dtype).equal(tensor) else tensor


def _pack(model: ModelSpec, content: Path, target: Path) -> Path:
    """Lets torch-model-archiver make the archive; returns its path.

    The handler is named as a module of the package that is packed anyway, so that its file is not there twice.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging import package_model
    from model_archiver.model_packaging_utils import ModelExportUtils

    config = ModelArchiverConfig(
        model_name=model.name,
        version=model.version,
        handler=f"handlers.{model.handler}",
        serialized_file=str(content / WEIGHTS_FILE),
        extra_files=str(content / "extra"),
        config_file=str(content / SERVING_FILE),
        export_path=str(target),
        archive_format="zip-store",
    )
    manifest = json.loads(ModelExportUtils.generate_manifest_json(config))
    manifest["createdOn"] = "01/01/1980 00:00:00"
    with _temporary_files_in(target):
        package_model(replace(config, handler=""), json.dumps(manifest, indent=2))
    return target / f"{model.name}.mar"


@contextmanager
def _temporary_files_in(directory: Path) -> Iterator[None]:
    """The archiver deletes <temporary directory>/<model name> before it works there: keep that away from others."""
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _reproducible(archive: Path, target: Path) -> None:
    """Copies a zip file with sorted entries, fixed times and permissions, and nothing compressed.

    Trained weights hardly compress, and what compression gives depends on the zlib at hand.
    """
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(target, "w") as final:
        for entry in sorted(packed.infolist(), key=lambda entry: entry.filename):
            info = zipfile.ZipInfo(entry.filename, EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            info.file_size = entry.file_size
            with packed.open(entry) as source, final.open(info, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _inputs(archive: Archive) -> str:
    """A digest of all that decides the archive's bytes."""
    digest = hashlib.sha256()
    package = [path for path in sorted((ROOT / "handlers").rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    given = [archive.weights] + ([archive.config] if archive.config else [])
    for path in (Path(__file__).resolve(), *package, *given):
        digest.update(f"{path.name} {_digest(path)}\n".encode())
    for name in ("safetensors", "torch-model-archiver"):
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    digest.update(archive.model.to_json().encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
