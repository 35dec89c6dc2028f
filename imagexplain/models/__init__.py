"""Model architectures, one file each, and their networks from checkpoints. Knows nothing of attribution or HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, cast

from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.programs import PROGRAMS

OWN = "module"
"""Architecture of code of a user's own: :mod:`imagexplain.models.classifiers.own_module`."""

LIBRARIES = {"huggingface": "huggingface_network", "timm": "timm_network", "torchvision": "torchvision_network"}
"""Modules of :mod:`imagexplain.models.classifiers` for the networks of a library, ``LIBRARY/NAME``: each has a
``build(name, state, arguments)`` and a ``preprocess(name, arguments)``."""

ARCHITECTURES = ("bit", "lanet")
"""Architectures of our own: modules of :mod:`imagexplain.models.classifiers` that build a network from a checkpoint's
tensors. One is imported when it is asked for, for timm and torchvision take a hundred megabytes and seconds."""

WITHOUT_A_LIBRARY = (*ARCHITECTURES, OWN, *PROGRAMS)
"""Architectures that no library's account of the preprocessing goes with."""


def build(architecture: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``: images (B, 3, H, W) to logits (B, classes).

    A model of transformers gives an output whose ``logits`` they are, which a head picks out.

    Args:
        architecture: Name of the architecture: one of :data:`ARCHITECTURES`, or that of one of :data:`LIBRARIES`, ``/``
            and the name of one of its models, of transformers its type.
        state: Tensors of the checkpoint, as :func:`imagexplain.models.checkpoints.checkpoint.read` returns them.
            Float32 tensors are shared with the network.
        arguments: Arguments of a library's model, see its module, such as
            :mod:`imagexplain.models.classifiers.timm_network`; all that the others need to know follows from the shapes
            of the tensors.

    Raises:
        ArgumentError: an unknown architecture, or arguments that it does not take.
        CheckpointError: the tensors do not fit the architecture; lists the missing, unexpected and wrongly shaped.
    """
    library, _, name = architecture.partition("/")
    if library in LIBRARIES:
        return cast(nn.Module, library_module(library).build(name, state, arguments or {}))
    if architecture not in ARCHITECTURES:
        raise unknown(architecture)
    if arguments:
        names = ", ".join(arguments)
        raise ArgumentError("arguments", f"go with a library's model, {architecture} takes none; given {names}")
    module = import_module(f"imagexplain.models.classifiers.{architecture}")
    try:
        return cast(nn.Module, module.build(state))
    except ValueError as error:
        raise CheckpointError(f"{architecture}: the shapes fit no such network: {error}") from error


def library_module(library: str) -> ModuleType:
    """Module for the networks of one of :data:`LIBRARIES`; imported by need, for libraries take seconds."""
    return import_module(f"imagexplain.models.classifiers.{LIBRARIES[library]}")


def unknown(architecture: str) -> ArgumentError:
    """Error for an architecture that is none."""
    of_libraries = " or ".join(f"{library}/" for library in LIBRARIES)
    known = ", ".join(WITHOUT_A_LIBRARY)
    wanted = f"wanted one of {known}, or {of_libraries} and the name of one of its models"
    return ArgumentError("architecture", f"{wanted}, given {architecture!r}")


__all__ = [
    "ARCHITECTURES",
    "LIBRARIES",
    "OWN",
    "PROGRAMS",
    "WITHOUT_A_LIBRARY",
    "CheckpointError",
    "build",
    "library_module",
    "unknown",
]
