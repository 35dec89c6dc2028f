"""Model archives from specs: the package, its handlers, the weights, the resolved spec and TorchServe's settings.

The same inputs give the same bytes; an archive whose inputs have not changed is not built again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from imagexplain.archive.manifest import HASHES, MANIFEST, sha256_of
from imagexplain.archive.spec import (
    CONFIG_FILE,
    OWN_MODULE,
    SPEC_FILE,
    CaptionerSpec,
    FileSource,
    ModelSpec,
    NameSource,
    ResolvedArchive,
    SegmenterSpec,
    SpecError,
    load,
    select_each,
)
from imagexplain.checkout import ROOT as ROOT
from imagexplain.errors import ArgumentError, RequestError
from imagexplain.progress import say, with_progress

if TYPE_CHECKING:  # importing torch takes seconds, which an archive that is up to date does not need
    from torch import Tensor

    from imagexplain.models.checkpoints.state_dict import StateDict

SERVING_FILE = "model-config.yaml"
PACKAGES = ("handlers", "imagexplain")
NOT_CARRIED = ("__pycache__", "*.pyc", "*.pyi", "py.typed")
SPEC_FIELDS = (
    *("architecture", "arguments", "features", "head", "labels", "module"),
    *("preprocess", "settings", "vocabulary"),
)
"""Fields that the build of a network may refuse."""
LISTED = 8  # labels or tensors that a message names
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold

Check = Callable[[ModelSpec], None]
"""Function that raises SpecError for a resolved spec that a worker would refuse."""


def build_all(
    specs: list[Path],
    store: Path,
    *,
    force: bool = False,
    environ: Mapping[str, str] = os.environ,
    check: Check = lambda _: None,
) -> list[Path]:
    """Build every archive that the specs ask for; returns their paths.

    One that cannot be built keeps none of the others from being built, and leaves what stands in the store as it was.

    Raises SpecError naming file and field, once all others are built; one line or more for each that could not be.
    """
    store.mkdir(parents=True, exist_ok=True)
    memory = store / ".variables.json"
    variables = _variables(specs, _remembered(memory), environ)
    archives, failures = select_each(specs, variables)
    if not archives and not failures:
        raise SpecError(f"no archive to build among {', '.join(map(str, specs)) or 'no specs'}")
    memory.write_text(json.dumps(variables, indent=2) + "\n")
    built = []
    for archive in archives:
        try:
            built.append(build(archive, store, force=force, check=check))
        except (SpecError, OSError) as error:
            say(f"{archive.model.file_name}: not built, see below")
            failures.append(error if isinstance(error, SpecError) else SpecError(f"{archive.source}: {error}"))
    if failures:
        raise SpecError("\n".join(map(str, failures)))
    return built


def build(archive: ResolvedArchive, store: Path, *, force: bool = False, check: Check = lambda _: None) -> Path:
    """Build one archive, unless it stands in the store already; returns its path. Raises SpecError."""
    name = archive.model.file_name
    target = store / f"{name}.mar"
    stamp, key = store / f".{name}.inputs", with_progress(f"{name}: reading", lambda: _inputs(archive))
    if not force and target.is_file() and stamp.is_file() and stamp.read_text() == f"{key} {_digest(target)}":
        say(f"{name}: up to date ({target})")
        return target
    started = time.perf_counter()
    say(f"{name}: building from {archive.weights}")
    if (code := archive.module or archive.program) is not None:
        say(f"{name}: runs {code.name}, here and where it is served: it is trusted like the service's own code")
    with tempfile.TemporaryDirectory() as work:
        content, packed, final = Path(work, "content"), Path(work, "packed"), Path(work, "final.mar")
        for directory in (content, packed):
            directory.mkdir()
        weights = with_progress(f"{name}: checking the weights", lambda: _stage(archive, content, check))
        with_progress(f"{name}: packing", lambda: _sealed(_pack(archive.model, weights, content, packed), final))
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


def _remembered(memory: Path) -> dict[str, str]:
    """The variables of the builds before."""
    try:
        content = json.loads(memory.read_text()) if memory.is_file() else {}
    except ValueError as error:
        raise SpecError(f"{memory}: not JSON: {error}; without the file, variables are to be given again") from None
    return {str(name): str(value) for name, value in content.items()} if isinstance(content, dict) else {}


def _variables(specs: list[Path], before: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a user's files: those of this build, and those of the builds before.

    So `make archives LANET_WEIGHTS=...` holds for the `make serve` after it, until the variable is given again; given
    empty, it is forgotten. Those of specs that are not built now, or that cannot be read, are kept as well.
    """
    named = {source.environment: source for path in specs for source in _sources(path) if source.environment}
    now = {name: source.from_environment(environ) for name, source in named.items() if name in environ}
    kept = {name: before[name] for name in sorted(before) if name not in now}
    for name in sorted(kept.keys() & named.keys()):
        say(f"{name} stays {kept[name]} (make archives {name}= forgets it)")
    return kept | {name: str(file) for name, file in now.items() if file}


def _sources(path: Path) -> tuple[FileSource | NameSource, ...]:
    try:
        return load(path).sources
    except SpecError:  # which is told where the archives are selected
        return ()


def _stage(archive: ResolvedArchive, content: Path, check: Check) -> Path:
    """Write the files of the archive, as the archiver wants them, into an empty directory; returns the weights."""
    from imagexplain.archive import classifier_network

    for package in PACKAGES:
        shutil.copytree(ROOT / package, content / "extra" / package, ignore=shutil.ignore_patterns(*NOT_CARRIED))
    (content / SERVING_FILE).write_text(yaml.safe_dump(model_config(archive.model), sort_keys=True), encoding="utf-8")
    for file, name in _module_names(archive).items():
        (content / "extra" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, content / "extra" / name)
    weights = content / classifier_network.weights_file(archive.model)
    model = _weights(archive, weights)
    try:
        check(model)
    except SpecError as error:
        raise SpecError(f"{archive.source}: {error}") from error
    (content / "extra" / SPEC_FILE).write_text(model.to_json(), encoding="utf-8")
    return weights


def _module_names(archive: ResolvedArchive) -> dict[Path, str]:
    """Names in the archive of the files of a classifier's own code."""
    module = archive.module
    if module is None or module.is_file():
        return dict.fromkeys(archive.module_files, f"{OWN_MODULE}.py")
    return {file: f"{OWN_MODULE}/{file.relative_to(module)}" for file in archive.module_files}


def _weights(archive: ResolvedArchive, target: Path) -> ModelSpec:
    """Convert the checkpoint to safetensors, after every key was found to fit and a photo to come through.

    Returns:
        The resolved spec, with the labels that the weights tell where it leaves them to those.
    """
    from imagexplain.archive import classifier_network, supported_methods
    from imagexplain.models import programs

    with _told(archive, "weights"):
        state = classifier_network.read_checkpoint(archive)
    if isinstance(archive.model, CaptionerSpec):
        _check_captioner(archive, archive.model, state, target.parent / "extra")
        return _write_weights(archive, state, target)
    config = _config(archive, target.parent / "extra")
    _check_order(archive, state.classes, f"the checkpoint {archive.weights.name}")
    _check_order(archive, (config or {}).get("classes"), f"the configuration {archive.config and archive.config.name}")
    archive, refused = _check(archive, state, config)
    _check_default_method(archive, refused)
    supported_methods.write(supported_methods.supported(refused), target.parent / "extra")
    if archive.program is not None:
        with _told(archive, "weights"):
            programs.carry(archive.program, target)
        return archive.model
    return _write_weights(archive, state, target)


def _write_weights(archive: ResolvedArchive, state: StateDict, target: Path) -> ModelSpec:
    from safetensors.torch import save_file

    from imagexplain.models.checkpoints import checkpoint

    _tell_which(archive, state)
    kept, others = checkpoint.shared(state.tensors)
    notes = checkpoint.notes(state.taken, others)
    save_file({key: _smallest(kept[key]).contiguous() for key in sorted(kept)}, target, notes or None)
    return archive.model


def _check_captioner(archive: ResolvedArchive, model: CaptionerSpec, state: StateDict, extra: Path) -> None:
    """Write the network of a captioner's features, after it and the captioner were found to fit and to work."""
    import torch
    from safetensors.torch import save_file

    from imagexplain.archive import captioner_archive

    extracted = None
    if archive.features:
        with _told(archive, "features"):
            extracted = captioner_archive.feature_tensors(archive.features)
    with _told(archive, "weights"):
        built = captioner_archive.build(model, state.tensors, None, torch.device("cpu"))
    if extracted is not None:
        with _told(archive, "features"):
            built = captioner_archive.build(model, state.tensors, extracted, torch.device("cpu"))
        smallest = {key: _smallest(extracted[key]).contiguous() for key in sorted(extracted)}
        save_file(smallest, extra / captioner_archive.FEATURES_FILE)
    with _told(archive, "weights"):
        captioner_archive.dry_run(built)


@contextmanager
def _told(archive: ResolvedArchive, field: str) -> Iterator[None]:
    """Turn whatever is raised into an error that names the file and the field: libraries may raise anything."""
    file = {"config": archive.config, "features": next(iter(archive.features), None)}.get(field, archive.weights)
    try:
        yield
    except SpecError:
        raise
    except Exception as error:
        from imagexplain.models.checkpoints.checkpoint import CheckpointError
        from imagexplain.models.segmenters.mmdet_config import ConfigError

        if isinstance(error, ConfigError) and archive.config is not None:
            field, file = "config", archive.config
        known = isinstance(error, CheckpointError | RequestError | ValueError | ImportError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        if isinstance(error, ArgumentError) and error.field in SPEC_FIELDS:
            raise SpecError(f"{archive.source}: {reason}") from error
        raise SpecError(f"{archive.source}: {field}: {file}: {reason}") from error


def _config(archive: ResolvedArchive, extra: Path) -> dict[str, Any] | None:
    """The resolved configuration of an mmdet model, which goes into the archive; runs the file if it is Python."""
    if archive.config is None:
        return None
    with _told(archive, "config"):
        from imagexplain.models.segmenters.mmdet_config import resolve

        config = resolve(archive.config)
        (extra / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return config


def _check_order(archive: ResolvedArchive, classes: Sequence[str] | None, by: str) -> None:
    """Refuse labels of which one is another class's name according to the model's own files.

    Other names for the classes, in another language say, are the user's to choose.
    """
    labels = archive.model.labels
    if classes is None or len(classes) != len(labels) or not archive.labelled:
        return
    places = {_plainly(name) for name in classes}
    pairs = [(index, *pair) for index, pair in enumerate(zip(labels, classes, strict=True)) if pair[0] != pair[1]]
    renamed = [(index, ours, theirs) for index, ours, theirs in pairs if _plainly(ours) != _plainly(theirs)]
    swapped = [f"{index} {ours!r} (there {theirs!r})" for index, ours, theirs in renamed if _plainly(ours) in places]
    if swapped:
        more = f" and {len(swapped) - LISTED} more" if len(swapped) > LISTED else ""
        raise SpecError(
            f"{archive.source}: labels: wanted the order of {by}; differing: {', '.join(swapped[:LISTED])}{more}"
        )
    if renamed:
        _, ours, theirs = renamed[0]
        name = archive.model.file_name
        say(f"{name}: {len(renamed)} labels are not those of {by}, the first {ours!r} for {theirs!r}")


def _plainly(name: str) -> str:
    return name.casefold().replace("_", " ").strip()


def _check(
    archive: ResolvedArchive, checkpoint: StateDict, config: Mapping[str, Any] | None
) -> tuple[ResolvedArchive, dict[str, str]]:
    """Build the network that the weights make, and send a photo through it as a request would.

    Returns:
        The archive with its labels, and the reasons why the network does not support a method, by the method's name.
    """
    import torch

    from imagexplain.archive import classifier_network
    from imagexplain.archive import segmenter_backends as engines
    from imagexplain.archive.supported_methods import example_input, find_refusals
    from imagexplain.models.checkpoints.state_dict import enumerated
    from imagexplain.models.head import remarks
    from imagexplain.models.programs import trial
    from imagexplain.models.programs.program import Program

    model, state, labels = archive.model, checkpoint.tensors, len(archive.model.labels)
    assert not isinstance(model, CaptionerSpec)
    if isinstance(model, SegmenterSpec):
        with _told(archive, "weights"):
            engine = engines.build(model, state, config, torch.device("cpu"))
        if engine.classes not in (None, labels):
            raise SpecError(_other_count(archive, engine.classes))
        with _told(archive, "weights"):
            explained = engines.dry_run(engine, labels, model.threshold)
        return archive, {} if explained is None else find_refusals(*explained)
    with _told(archive, "weights"), torch.no_grad():
        built = classifier_network.of_checkpoint(archive, checkpoint)
        image = example_input(model)
        if isinstance(built.network, Program):
            trial.check(built.network, image, on_cpu=model.serving.device == "cpu")
        network, scores = built.network, built.network(image[None])
        for remark in remarks(built.head, network.forward(image[None])):  # past the hook that is the head
            say(f"{model.file_name}: {remark}")
    if built.head.probabilities_by != model.head.probabilities_by:
        archive = archive.with_head(asdict(built.head))
    if not archive.labelled:
        archive = archive.with_labels(scores.shape[1], checkpoint.classes)
        say(f"{model.file_name}: no labels are given; {enumerated('those of the weights', archive.model.labels)}")
    elif scores.shape[1] != labels:
        raise SpecError(_other_count(archive, scores.shape[1]))
    if not scores.isfinite().all():
        odd = [name for name, tensor in state.items() if not tensor.isfinite().all()][:LISTED]
        named = f"; in the weights: {', '.join(odd)}" if odd else ""
        raise SpecError(
            f"{archive.source}: weights: {archive.weights}: wanted finite scores, given {scores[0, :LISTED].tolist()}"
            f" for a photo{named}"
        )
    return archive, find_refusals(network, image)


def _check_default_method(archive: ResolvedArchive, refused: Mapping[str, str]) -> None:
    """Refuse a method by default that the model does not support: no explanation would be answered."""
    method = archive.model.explain.method
    if method in refused:
        reason = f"wanted a method that the model supports, got {method}: {refused[method]}"
        raise SpecError(f"{archive.source}: explain.method: {reason}")


def _other_count(archive: ResolvedArchive, classes: int | None) -> str:
    given = len(archive.model.labels)
    return f"{archive.source}: labels: the weights have {classes} classes, given are {given} labels"


def _tell_which(archive: ResolvedArchive, state: StateDict) -> None:
    """Print which of a checkpoint's weights were taken, where there were several or averaged ones."""
    from imagexplain.models.checkpoints.state_dict import AVERAGED

    averaged = " (averaged)" if any(key in AVERAGED for key in state.taken.split("/")) else ""
    if state.beside or averaged:
        others = f", not its {', '.join(state.beside)}" if state.beside else ""
        taken = f"{archive.weights.name}'s {state.taken or 'own'}{averaged}"
        say(f"{archive.model.file_name}: the weights are {taken}{others}")


def _smallest(tensor: Tensor) -> Tensor:
    """The tensor in half precision where that loses nothing, as with the demonstration weights."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.to(tensor.dtype).equal(tensor) else tensor


def _pack(model: ModelSpec, weights: Path, content: Path, target: Path) -> Path:
    """Let torch-model-archiver make the archive; returns its path.

    The handler is named as a module of the package that is packed anyway, so that its file is not there twice.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging import package_model
    from model_archiver.model_packaging_utils import ModelExportUtils

    config = ModelArchiverConfig(
        model_name=model.name,
        version=model.version,
        handler=f"handlers.{model.handler}",
        serialized_file=str(weights),
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
    """Give the archiver a temporary directory of its own: it deletes <temporary directory>/<model name> at first."""
    before, tempfile.tempdir = tempfile.tempdir, str(directory)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _sealed(archive: Path, target: Path) -> None:
    """Copy a zip file with sorted entries, fixed times and permissions, nothing compressed, and its files' SHA-256.

    Trained weights hardly compress, and what compression gives depends on the installed zlib. The sums stand in the
    manifest, which has none itself; `imagexplain.ops.check_archive` compares them.
    """
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(target, "w") as final:
        entries = sorted((each for each in packed.infolist() if not each.is_dir()), key=lambda entry: entry.filename)
        manifest = json.loads(packed.read(MANIFEST))
        manifest[HASHES] = {
            each.filename: sha256_of(packed, each.filename) for each in entries if each.filename != MANIFEST
        }
        for entry in entries:
            info = zipfile.ZipInfo(entry.filename, EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            if entry.filename == MANIFEST:
                final.writestr(info, json.dumps(manifest, indent=2))
                continue
            info.file_size = entry.file_size
            with packed.open(entry) as source, final.open(info, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _inputs(archive: ResolvedArchive) -> str:
    """A digest of all that decides the archive's bytes."""
    digest = hashlib.sha256()
    package = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*")) if _is_carried(path)]
    given = [archive.weights, *archive.parts, *archive.features] + ([archive.config] if archive.config else [])
    given += sorted(archive.weights.parent.glob(f"{glob.escape(archive.weights.name)}.data"))  # of an ONNX program
    for path in (Path(__file__).resolve(), *package, *given):
        digest.update(f"{path.name} {_digest(path)}\n".encode())
    for path, name in _module_names(archive).items():
        digest.update(f"{name} {_digest(path)}\n".encode())
    for name in ("safetensors", "torch-model-archiver"):
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    digest.update(f"{archive.labelled} {archive.model.to_json()}".encode())
    return digest.hexdigest()


def _is_carried(path: Path) -> bool:
    return path.is_file() and not any(fnmatch(part, pattern) for part in path.parts for pattern in NOT_CARRIED)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
