"""The architectures, one file each, and what a checkpoint of each becomes. Knows nothing of attribution or HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.classifiers import bit, lanet, timm_network

ARCHITECTURES: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {"bit": bit.build, "lanet": lanet.build}
"""By name: from a checkpoint's tensors to the network."""


def build(architecture: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """The network of a checkpoint, in ``eval()``: images (B, 3, H, W) to logits (B, classes).

    Args:
        architecture: a key of :data:`ARCHITECTURES`, or ``timm/`` and the name of a model of timm.
        state: the checkpoint's tensors, as :func:`imagexplain.models.checkpoints.checkpoint.read` returns them. Float32
            tensors are shared with the network.
        arguments: of a model of timm, see :mod:`imagexplain.models.classifiers.timm_network`; all that the others need
            to know follows from the shapes of the tensors.

    Raises:
        ValueError: an unknown architecture, or arguments that it does not take.
        CheckpointError: the tensors do not fit the architecture; lists the missing, unexpected and wrongly shaped.
    """
    library, _, name = architecture.partition("/")
    if library == "timm":
        return timm_network.build(name, state, arguments or {})
    if architecture not in ARCHITECTURES:
        wanted = f"wanted one of {', '.join(ARCHITECTURES)}, or timm/ and the name of one of its models"
        raise ValueError(f"architecture: {wanted}, given {architecture!r}")
    if arguments:
        raise ValueError(f"arguments: go with a timm model, {architecture} takes none; given {', '.join(arguments)}")
    try:
        return ARCHITECTURES[architecture](state)
    except ValueError as error:
        raise CheckpointError(f"{architecture}: the shapes fit no such network: {error}") from error


__all__ = ["ARCHITECTURES", "CheckpointError", "build"]
