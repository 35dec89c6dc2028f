"""Networks of classifiers: from the files that a spec names, and from an unpacked archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from imagexplain import models
from imagexplain.archive.spec import WEIGHTS_FILE, ClassifierSpec, ResolvedArchive
from imagexplain.archive.supported_methods import example_input
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.state_dict import StateDict
from imagexplain.models.head import Head, attach, with_logits_found


@dataclass(frozen=True, eq=False)
class SourceNetwork:
    """Network of a classifier whose archive is not built yet.

    Attributes:
        network: Network in ``eval()``: images (B, C, H, W) to the scores that are explained (B, classes).
        checkpoint: Tensors of its checkpoint, and what the file tells beside them.
        head: Head of the network, with what was found out about it.
    """

    network: nn.Module
    checkpoint: StateDict
    head: Head


def of_sources(archive: ResolvedArchive) -> SourceNetwork:
    """Build the network of a resolved archive from its own files.

    Raises:
        CheckpointError, ArgumentError: as for :func:`imagexplain.models.build`.
    """
    assert isinstance(archive.model, ClassifierSpec)
    return of_checkpoint(archive.model, checkpoint.load(archive.weights))


def of_checkpoint(spec: ClassifierSpec, state: StateDict) -> SourceNetwork:
    """Build the network of a checkpoint that is read already; raises like :func:`of_sources`."""
    network = models.build(spec.architecture, state.tensors, spec.arguments)
    head = Head(**spec.head.model_dump())
    if head.gives == "probabilities":
        head = with_logits_found(network, head, example_input(spec)[None])
    return SourceNetwork(attach(network, head), state, head)


def of_archive(spec: ClassifierSpec, model_dir: Path) -> nn.Module:
    """Build the network of an unpacked archive, to the scores that are explained; raises like :func:`of_sources`."""
    network = models.build(spec.architecture, checkpoint.read(model_dir / WEIGHTS_FILE), spec.arguments)
    return attach(network, Head(**spec.head.model_dump()))
