"""The architectures, one file each, and what a checkpoint of each becomes. Knows nothing of attribution or HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from handlers.models import bit, lanet
from handlers.models.checkpoint import CheckpointError

ARCHITECTURES: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {"bit": bit.build, "lanet": lanet.build}
"""By name: from a checkpoint's tensors to the network."""


def build(architecture: str, state: Mapping[str, Tensor]) -> nn.Module:
    """The network of a checkpoint, in ``eval()``: images (B, 3, H, W) to logits (B, classes).

    Args:
        architecture: a key of :data:`ARCHITECTURES`.
        state: the checkpoint's tensors, as :func:`handlers.models.checkpoint.read` returns them. The network's
            arguments follow from their shapes. Float32 tensors are shared with the network.

    Raises:
        ValueError: an unknown architecture.
        CheckpointError: the tensors do not fit the architecture; lists the missing, unexpected and wrongly shaped.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture: wanted one of {', '.join(ARCHITECTURES)}, given {architecture!r}")
    try:
        return ARCHITECTURES[architecture](state)
    except ValueError as error:
        raise CheckpointError(f"{architecture}: the shapes fit no such network: {error}") from error


__all__ = ["ARCHITECTURES", "CheckpointError", "build"]
