"""Model architectures, one file each, and their networks from checkpoints. Knows nothing of attribution or HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.checkpoint import CheckpointError

ARCHITECTURES = ("bit", "lanet")
"""Architectures of our own: modules of :mod:`imagexplain.models.classifiers` that build a network from a checkpoint's
tensors. One is imported when it is asked for, for timm and torchvision take a hundred megabytes and seconds."""


def build(architecture: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``: images (B, 3, H, W) to logits (B, classes).

    Args:
        architecture: Name of the architecture: one of :data:`ARCHITECTURES`, or ``timm/`` and the name of a model of
            timm.
        state: Tensors of the checkpoint, as :func:`imagexplain.models.checkpoints.checkpoint.read` returns them.
            Float32 tensors are shared with the network.
        arguments: Arguments of a model of timm, see :mod:`imagexplain.models.classifiers.timm_network`; all that the
            others need to know follows from the shapes of the tensors.

    Raises:
        ArgumentError: an unknown architecture, or arguments that it does not take.
        CheckpointError: the tensors do not fit the architecture; lists the missing, unexpected and wrongly shaped.
    """
    library, _, name = architecture.partition("/")
    if library == "timm":
        from imagexplain.models.classifiers import timm_network

        return timm_network.build(name, state, arguments or {})
    if architecture not in ARCHITECTURES:
        wanted = f"wanted one of {', '.join(ARCHITECTURES)}, or timm/ and the name of one of its models"
        raise ArgumentError("architecture", f"{wanted}, given {architecture!r}")
    if arguments:
        names = ", ".join(arguments)
        raise ArgumentError("arguments", f"go with a timm model, {architecture} takes none; given {names}")
    module = import_module(f"imagexplain.models.classifiers.{architecture}")
    try:
        network: nn.Module = module.build(state)
        return network
    except ValueError as error:
        raise CheckpointError(f"{architecture}: the shapes fit no such network: {error}") from error


__all__ = ["ARCHITECTURES", "CheckpointError", "build"]
