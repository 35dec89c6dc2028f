"""mmdet configurations: resolved to plain values when an archive is built, and checked before a model is made of them.

A configuration of mmdet is Python code, or text that may ask for modules to be imported. :func:`resolve` runs it, once,
where the archive is built, and keeps what inference needs as values that JSON can hold. :func:`checked` lets nothing
else through where the model is served: a type is the name of a class that mmdet, mmcv or mmengine registered, never a
path from which something is imported, and nothing is left that would fetch weights.

Provenance: keys and their meanings are facts of mmdet 3.3.0, mmcv 2.1.0 and mmengine 0.10
(https://github.com/open-mmlab, Apache-2.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from imagexplain.models.segmenters import mmcv_ext

TUPLE = "__tuple__"
"""Key under which a tuple keeps its numbers: JSON has lists only, and mmdet tells them apart."""

SCOPES = ("mmdet.", "mmcv.", "mmengine.")
"""Prefixes that may stand before a type's name."""

SUPPRESSIONS = {"nms", "soft_nms"}
"""Types that mmcv looks up by itself, by evaluating their names."""

EVALUATES = {"CameraMotionCompensation"}
"""Registered classes that evaluate text of the configuration as code."""

DROPPED = {"init_cfg", "pretrained"}
"""Keys of a model that say where its first weights come from, possibly over the network."""

TRAINING = "train_cfg"
"""Key of what matters to training only. It stays, as None: constructors may want the argument."""

SYNCHRONISED = {"SyncBN": "BN", "MMSyncBN": "BN"}
"""Norms that average over processes in training, and what computes the same at inference."""

LOADERS = ("Load", "InferencerLoader")
"""Beginnings of the names of steps that read files: pictures come as arrays, annotations not at all."""

KEYS = {"model", "pipeline", "classes"}


class ConfigError(ValueError):
    """A configuration from which no segmenter can be made; says where and why."""


def resolve(file: Path | str) -> dict[str, Any]:
    """Resolve a configuration to the values that inference needs.

    It runs the file when that is Python: only for files that are trusted.

    Args:
        file: Configuration of mmdet 3, ``.py``, ``.json`` or ``.yaml``. ``_base_`` is followed.

    Returns:
        ``model``; ``pipeline``, the steps from a photo to the model's input; ``classes``, the labels by index, or None
        where the configuration does not name them. JSON can hold all of it, and :func:`checked` takes it.

    Raises:
        ConfigError: it wants modules imported, lacks a model or a test pipeline, or holds values that JSON cannot.
        FileNotFoundError: there is no such file.
    """
    mmcv_ext.install()
    from mmengine.config import Config

    config = Config.fromfile(file, import_custom_modules=False)
    _no_imports(config)
    for wanted in ("model", "test_dataloader"):
        if wanted not in config:
            raise ConfigError(f"{Path(file).name}: wanted {wanted!r}, as mmdet 3 has it; given {', '.join(config)}")
    dataset = config.test_dataloader.dataset
    while "pipeline" not in dataset and "dataset" in dataset:
        dataset = dataset.dataset
    if "pipeline" not in dataset:
        raise ConfigError(
            f"{Path(file).name}: wanted a pipeline in test_dataloader.dataset, given {', '.join(dataset)}"
        )
    names = dataset.get("metainfo", config.get("metainfo") or {}).get("classes")
    resolved = {
        "model": _plain(config.model.to_dict(), "model"),
        "pipeline": [
            _plain(step.to_dict(), f"pipeline[{index}]")
            for index, step in enumerate(dataset.pipeline)
            if not _name(step.type).startswith(LOADERS)
        ],
        "classes": [names] if isinstance(names, str) else list(names) if names else None,
    }
    checked(resolved)
    return resolved


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a resolved configuration, and return it as mmdet's registries take it.

    Args:
        config: Result of :func:`resolve`, possibly by way of JSON.

    Returns:
        The same keys, with tuples again tuples, without what would fetch weights, and with norms that need no process
        group.

    Raises:
        ConfigError: another key than these, a key that makes mmengine import or inherit, or a type that is not
            registered.
    """
    _no_imports(config)
    if set(config) != KEYS:
        raise ConfigError(f"config: wanted {', '.join(sorted(KEYS))}, given {', '.join(sorted(map(str, config)))}")
    names = _registered()
    return {
        "model": _safe(config["model"], "model", names),
        "pipeline": _safe(config["pipeline"], "pipeline", names),
        "classes": config["classes"],
    }


def _no_imports(config: Mapping[str, Any]) -> None:
    if config.get("custom_imports"):
        modules = json.dumps(config["custom_imports"], default=str)
        raise ConfigError(
            f"custom_imports: the configuration wants code of its own imported ({modules}), which a worker does not "
            "do; wanted a model of mmdet, mmcv and mmengine alone"
        )


def _registered() -> set[str]:
    """Names of all classes from which models and pipelines are made."""
    for registering in ("mmdet.models", "mmdet.datasets.transforms"):
        import_module(registering)
    from mmcv import ops
    from mmdet import registry

    leaves = (registry.MODELS, registry.TASK_UTILS, registry.TRANSFORMS)
    registered = {name for leaf in leaves for each in (leaf, leaf.parent) for name in each.module_dict}
    # RoI extractors take their layers from there, unregistered.
    layers = {name for name, value in vars(ops).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    return (registered | layers | SUPPRESSIONS) - EVALUATES


def _name(kind: Any) -> str:
    """Name of a type without its scope; lazy configurations give the class itself or the path to it."""
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _plain(value: Any, where: str) -> Any:
    """Value as JSON can hold it."""
    if isinstance(value, Mapping):
        kept = {str(key): item for key, item in value.items() if key not in DROPPED}
        # What a base from mmdet's own configurations leaves behind.
        if kept.get("_scope_") in ("mmdet", "mmcv", "mmengine"):
            del kept["_scope_"]
        return {
            key: _name(item)
            if key == "type" and item is not None
            else _plain(None if key == TRAINING else item, f"{where}.{key}")
            for key, item in kept.items()
        }
    if isinstance(value, tuple):
        return {TUPLE: [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{where}: wanted numbers, text, lists and dicts, given {type(value).__name__}")


def _safe(value: Any, where: str, names: set[str]) -> Any:
    """Value with every type checked: the reverse of :func:`_plain`."""
    if isinstance(value, list):
        return [_safe(item, f"{where}[{index}]", names) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {TUPLE}:
        return tuple(_safe(value[TUPLE], where, names))
    for key in value:
        if str(key).startswith("_"):
            raise ConfigError(f"{where}: {key} is for mmengine's own machinery; wanted a resolved configuration")
    kept = {
        key: _safe(None if key == TRAINING else item, f"{where}.{key}", names)
        for key, item in value.items()
        if key not in DROPPED
    }
    if kept.get("type") is not None:
        kept["type"] = _type(kept["type"], where, names)
    return kept


def _type(kind: Any, where: str, names: set[str]) -> str:
    name = str(kind)
    for scope in SCOPES:
        name = name.removeprefix(scope)
    if name not in names:
        raise ConfigError(f"{where}.type: wanted a class that mmdet, mmcv or mmengine registers, given {kind!r}")
    return SYNCHRONISED.get(name, name)
