"""Folder of transformers' as the source of a served classifier: all that a spec says, from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.state_dict import CheckpointError
from imagexplain.models.classifiers import huggingface_folder, huggingface_preprocessing
from imagexplain.models.classifiers.huggingface_network import network_class

SUFFICIENT = {"size", "mean", "std"}
"""Fields of a preprocessing without which there is none."""


@dataclass(frozen=True)
class HuggingFaceSource:
    """Classifier as a folder states it.

    Attributes:
        weights: File of weights, or of the index of several.
        parts: Files that an index names; none where the weights are one file.
        model_type: Type of the model, such as ``vit``.
        arguments: Values of its configuration on which the network depends.
        labels: Names of the classes by index.
        activation: Relation of scores to probabilities: ``softmax``, ``sigmoid`` or ``none``.
        preprocess: Fields of a spec's ``preprocess``.
    """

    weights: Path
    parts: tuple[Path, ...]
    model_type: str
    arguments: dict[str, Any]
    labels: tuple[str, ...]
    activation: str
    preprocess: dict[str, Any]


def read(folder: Path, preprocess: Mapping[str, Any]) -> HuggingFaceSource:
    """Read a folder that ``save_pretrained`` wrote, and check that its class is one that classifies images.

    Args:
        folder: Folder of ``config.json``, the weights and, most often, ``preprocessor_config.json``.
        preprocess: Fields of a preprocessing that are known; where they are enough, the folder need not have a file of
            them.

    Raises:
        CheckpointError: a file that is missing, or a field that cannot be followed; the message names both.
        ImportError: transformers is not installed.
    """
    found = huggingface_folder.read(folder)
    try:
        network_class(found.model_type, found.arguments.get("architectures"))
    except ArgumentError as error:
        field = "model_type" if error.field == "architecture" else error.field
        raise CheckpointError(f"{huggingface_folder.CONFIG}: {field}: {error.message}") from None
    stated = any((folder / name).is_file() for name in huggingface_preprocessing.FILES)
    needed = stated or not set(preprocess) >= SUFFICIENT
    # Without a `problem_type` transformers trains one output as a value, and several as classes that compete.
    usual = "none" if len(found.labels) == 1 else "softmax"
    return HuggingFaceSource(
        found.weights,
        found.parts,
        found.model_type,
        found.arguments,
        found.labels,
        found.activation or usual,
        huggingface_preprocessing.preprocess(folder) if needed else {},
    )
