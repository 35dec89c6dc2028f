"""Networks of classifiers: from the files that a spec names, and from an unpacked archive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from imagexplain import models
from imagexplain.archive.spec import OWN_MODULE, WEIGHTS_FILE, ClassifierSpec, ModelSpec, ResolvedArchive
from imagexplain.archive.supported_methods import example_input
from imagexplain.models import programs
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.state_dict import StateDict
from imagexplain.models.classifiers import own_module
from imagexplain.models.head import Head, attach, with_logits_found
from imagexplain.models.programs import FILES

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


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
        CheckpointError, ArgumentError: as for :func:`imagexplain.models.build`, and what loading a program or a user's
            own code raises.
    """
    return of_checkpoint(archive, read_checkpoint(archive))


def read_checkpoint(archive: ResolvedArchive) -> StateDict:
    """Read the checkpoint of a resolved archive; a program's tensors are its own and are not listed."""
    return StateDict({}) if archive.program is not None else checkpoint.load(archive.weights)


def of_checkpoint(archive: ResolvedArchive, state: StateDict) -> SourceNetwork:
    """Build the network of a checkpoint that is read already; raises like :func:`of_sources`."""
    spec = archive.model
    assert isinstance(spec, ClassifierSpec)
    network = _network(spec, state.tensors, archive.module or archive.program, CPU)
    head = Head(**spec.head.model_dump())
    if head.gives == "probabilities":
        head = with_logits_found(network, head, example_input(spec)[None])
    return SourceNetwork(attach(network, head), state, head)


def of_archive(spec: ClassifierSpec, model_dir: Path, device: torch.device) -> nn.Module:
    """Build the network of an unpacked archive, to the scores that are explained; raises like :func:`of_sources`.

    Args:
        spec: Spec of the archive.
        model_dir: Folder of the archive.
        device: Device on which it will run; only a program is put there, for it may name another one.
    """
    file = model_dir / weights_file(spec)
    if spec.architecture in models.PROGRAMS:
        logger.warning("%s runs the program %s, which its operator trusts like the service", spec.name, file.name)
        network = _network(spec, {}, file, device)
    else:
        code = own_code(spec, model_dir)
        if code is not None:
            logger.warning(
                "%s runs code of its own, %s, which its operator trusts like the service", spec.name, code.name
            )
        network = _network(spec, checkpoint.read(file), code, device)
    return attach(network, Head(**spec.head.model_dump()))


def weights_file(spec: ModelSpec) -> str:
    """Name of the file in an archive that has the model's weights."""
    return FILES.get(spec.architecture, WEIGHTS_FILE) if isinstance(spec, ClassifierSpec) else WEIGHTS_FILE


def own_code(spec: ClassifierSpec, model_dir: Path) -> Path | None:
    """Folder or file of a classifier's own code in an unpacked archive; None for other architectures."""
    if spec.module is None:
        return None
    own = model_dir / OWN_MODULE
    return own if own.is_dir() else own.with_suffix(".py")


def _network(spec: ClassifierSpec, state: Mapping[str, Tensor], code: Path | None, device: torch.device) -> nn.Module:
    """Network of a checkpoint, of the user's own code with one, or of a program."""
    if code is None:
        return models.build(spec.architecture, state, spec.arguments)
    if spec.module is None:
        return programs.load(spec.architecture, code, spec.arguments, device)
    return own_module.build(code, spec.module.factory, state, spec.arguments)
