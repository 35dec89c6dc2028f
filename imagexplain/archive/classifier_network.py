"""Networks of classifiers: from the files that a spec names, and from an unpacked archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from imagexplain import models
from imagexplain.archive.spec import WEIGHTS_FILE, ClassifierSpec, ResolvedArchive
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.state_dict import StateDict


@dataclass(frozen=True, eq=False)
class SourceNetwork:
    """Network of a classifier whose archive is not built yet.

    Attributes:
        network: Network in ``eval()``: images (B, C, H, W) to scores (B, classes).
        checkpoint: Tensors of its checkpoint, and what the file tells beside them.
    """

    network: nn.Module
    checkpoint: StateDict


def of_sources(archive: ResolvedArchive) -> SourceNetwork:
    """Build the network of a resolved archive from its own files.

    Raises:
        CheckpointError, ArgumentError: as for :func:`imagexplain.models.build`.
    """
    assert isinstance(archive.model, ClassifierSpec)
    state = checkpoint.load(archive.weights)
    return SourceNetwork(models.build(archive.model.architecture, state.tensors, archive.model.arguments), state)


def of_archive(spec: ClassifierSpec, model_dir: Path) -> nn.Module:
    """Build the network of an unpacked archive; raises like :func:`of_sources`."""
    return models.build(spec.architecture, checkpoint.read(model_dir / WEIGHTS_FILE), spec.arguments)
