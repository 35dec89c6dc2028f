"""A debugged model as it is trained on, and the spec by which the outcome is the next version of its archive."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor, nn

from debugging.model import DebuggedModel, unpacked
from debugging.results import write_bytes, write_text
from imagexplain.archive.find import find_classifier
from imagexplain.archive.spec import ClassifierSpec, SpecError, load, version_order
from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.vit_keys import pooling_arguments
from imagexplain.models.classifiers import timm_network
from training.finetuning.run_folder import BEST, LABELS

SPEC = "archive.yaml"
EXPORTED = "best.safetensors"
"""Weights of the best epoch by the names of an architecture's authors, where its archives want those."""

DROP_PATH = 0.1
"""Rate of stochastic depth where none is named, of MAE's recipe."""


def spec_of(model: str, specs: Path) -> ClassifierSpec:
    """The resolved spec of an archive, a spec file, or a name among the specs, as for :func:`open_model`.

    Raises:
        ValueError: no such classifier.
    """
    if model.endswith(".mar"):
        with TemporaryDirectory() as folder:
            found = unpacked(Path(model), Path(folder)).model
    else:
        found = find_classifier(model, specs).model
    assert isinstance(found, ClassifierSpec)
    return found


def trainable_network(model: DebuggedModel, spec: ClassifierSpec, drop_path: float | None) -> nn.Module:
    """A network of its own with the model's weights, all of them to be trained, from images to logits.

    Args:
        model: The model.
        spec: Its spec.
        drop_path: Rate of stochastic depth in the last block; None for :data:`DROP_PATH` where the network has any.

    Raises:
        ArgumentError: a rate for a network that has no stochastic depth.
    """
    library, _, name = spec.architecture.partition("/")
    if library != "timm":
        if drop_path:
            raise ArgumentError("drop_path", f"wanted 0 for {spec.architecture}, got {drop_path}")
        network = copy.deepcopy(model.network)
        network.register_forward_hook(_logits_alone, prepend=True)  # before its head
        return network.requires_grad_(True)
    state = model.network.state_dict()
    with torch.device("meta"):
        outline = timm_network.create(name, spec.arguments)
    arguments = {**pooling_arguments(state, outline), **spec.arguments, "num_classes": len(model.labels)}
    network = timm_network.create(name, arguments | _stochastic_depth(name, arguments, drop_path))
    network.load_state_dict(state)
    return network


def next_version(name: str, specs: Iterable[Path]) -> str:
    """The first whole version behind those that the spec files have of a name; those that cannot be read have none."""
    versions = ["1.0"]
    for file in specs:
        try:
            spec = load(file)
        except SpecError:
            continue
        if spec.name == name:
            versions.append(spec.version)
    return f"{max(version_order(version)[0][0] for version in versions) + 1}.0"


def write_version(run: Path, spec: ClassifierSpec, network: nn.Module, version: str, description: str) -> Path:
    """Write the spec of a run's best epoch as a version of the archive beside it, and the weights that it names.

    Args:
        run: Folder of the run, with its checkpoint and its labels.
        spec: Spec of the model that was trained on.
        network: Network with the weights of the best epoch.
        version: Version of the new one.
        description: Description of it.

    Returns:
        The spec file.
    """
    weights = BEST
    if not spec.architecture.startswith("timm/"):
        weights = EXPORTED
        export = import_module(f"imagexplain.models.classifiers.{spec.architecture}").export
        write_bytes(run / weights, save(export(network.cpu())))
    changed = spec.model_dump(mode="json", exclude_defaults=True)
    content: dict[str, Any] = {
        "name": spec.name,
        "version": version,
        "description": description,
        "handler": spec.handler,
        "architecture": spec.architecture,
        "weights": weights,
        "labels": LABELS,
        "preprocess": spec.preprocess.model_dump(mode="json"),
        **{field: changed[field] for field in ("arguments", "explain", "limits", "serving") if field in changed},
    }
    file = run / SPEC
    write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return file


def _stochastic_depth(name: str, arguments: dict[str, Any], rate: float | None) -> dict[str, float]:
    if rate == 0:
        return {}
    wanted: dict[str, float] = {"drop_path_rate": DROP_PATH if rate is None else rate}
    try:
        with torch.device("meta"):
            timm_network.create(name, arguments | wanted)
    except ArgumentError:
        if rate is None:
            return {}
        raise
    return wanted


def _logits_alone(module: nn.Module, given: tuple[Tensor, ...], output: Any) -> Any:
    """Output of a network that in training has more to say than logits."""
    return output[0] if isinstance(output, tuple) else output
