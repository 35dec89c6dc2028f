"""Folder that ``save_pretrained`` wrote: the class, its configuration, labels and head, and the files of its weights.

JSON is read, nothing is imported. What would run code of the folder is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagexplain.models.checkpoints import sharded
from imagexplain.models.checkpoints.state_dict import CheckpointError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of weights, the one to take first; an index names several that lie beside it."""

ACTIVATIONS = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}
"""Activation of a head by the configuration's ``problem_type``."""

NOT_OF_THE_NETWORK = {
    *("id2label", "label2id", "model_type", "problem_type", "_name_or_path", "transformers_version", "_commit_hash"),
    *("dtype", "torch_dtype", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset"),
    *(
        "return_dict",
        "use_return_dict",
        "output_attentions",
        "output_hidden_states",
        "torchscript",
        "gradient_checkpointing",
    ),
}
"""Values of a configuration on which no score depends, or that stand elsewhere in a spec."""

REFUSED = {
    "auto_map": "wanted a class of transformers' own, given one whose code lies in the folder, which is not run",
    "quantization_config": "wanted weights of floating point, given quantized ones",
}


@dataclass(frozen=True)
class HuggingFaceFolder:
    """Content of a folder, but for its preprocessing.

    Attributes:
        path: Folder.
        weights: File of weights, or of the index of several.
        parts: Files that an index names; none where the weights are one file.
        model_type: Type of the model, such as ``vit``.
        arguments: Values of the configuration on which the network depends.
        labels: Names of the classes by index. Those that repeat have their index in brackets behind them.
        activation: Relation of scores to probabilities, ``softmax``, ``sigmoid`` or ``none``; None where the folder
            does not say.
    """

    path: Path
    weights: Path
    parts: tuple[Path, ...]
    model_type: str
    arguments: dict[str, Any]
    labels: tuple[str, ...]
    activation: str | None


def read(path: Path) -> HuggingFaceFolder:
    """Read the folder.

    Raises:
        CheckpointError: no such folder, a file that is missing, or a field of a configuration that is; the message
            names file and field.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"wanted the folder that save_pretrained wrote, given {'a file' if path.exists() else 'none'}"
        )
    config = read_json(path / CONFIG)
    for field, reason in REFUSED.items():
        if config.get(field):
            raise CheckpointError(f"{CONFIG}: {field}: {reason}")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(f"{CONFIG}: model_type: wanted the type of a model, such as vit, given {model_type!r}")
    if model_type == "timm_wrapper":
        name = config.get("architecture", "NAME")
        wanted = f"wanted a model of transformers' own, given one of timm's: serve its weights as timm/{name}"
        raise CheckpointError(f"{CONFIG}: model_type: {wanted}")
    labels = _labels(config)
    weights = _weights(path)
    problem = config.get("problem_type")
    if problem is not None and problem not in ACTIVATIONS:
        raise CheckpointError(f"{CONFIG}: problem_type: wanted one of {', '.join(ACTIVATIONS)}, given {problem!r}")
    return HuggingFaceFolder(
        path,
        weights,
        tuple(sharded.files(weights)) if sharded.is_index(weights) else (),
        model_type,
        _of_the_network(config) | {"num_labels": len(labels)},
        labels,
        None if problem is None else ACTIVATIONS[problem],
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read one of the folder's files of settings.

    Raises:
        CheckpointError: no such file, or none that holds fields and values.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file.name}: no such file in the folder, which has {_listed(file.parent)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.name}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file.name}: wanted fields and values, given {type(content).__name__}")
    return content


def _of_the_network(config: Mapping[str, Any], kept: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Values on which the network depends, those of configurations within this one included."""
    return {
        key: _of_the_network(value, frozenset({"model_type"})) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in NOT_OF_THE_NETWORK or key in kept
    }


def _weights(path: Path) -> Path:
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    wanted = f"wanted one of {', '.join(WEIGHTS)}"
    raise CheckpointError(f"{wanted} in the folder, which has {_listed(path)}")


def _listed(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "") if names else "no files"


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes in order, each of them once: published models have a crane that lifts and one that flies."""
    given = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # left out where it is transformers' default
    if not isinstance(given, Mapping) or not given:
        raise CheckpointError(f"{CONFIG}: id2label: wanted the name of each class by its index, given {given!r:.80}")
    names = {str(index): str(name) for index, name in given.items()}
    if names.keys() != set(map(str, range(len(names)))):
        wanted = f"wanted the indices 0 to {len(names) - 1} of {len(names)} classes"
        odd = next(index for index in names if index not in set(map(str, range(len(names)))))
        raise CheckpointError(f"{CONFIG}: id2label: {wanted}, given {odd!r} among them")
    ordered = [names[str(index)] for index in range(len(names))]
    times = Counter(ordered)
    return tuple(name if times[name] == 1 else f"{name} ({index})" for index, name in enumerate(ordered))
