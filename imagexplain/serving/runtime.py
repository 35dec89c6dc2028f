"""Device, limits and other models of a worker, from TorchServe's properties and the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from imagexplain.archive.spec import ModelSpec
from imagexplain.limits import Limits
from imagexplain.serving.metrics import NeighbourOutcome
from imagexplain.serving.remote_segments import RemoteSegments


def device(properties: Mapping[str, Any]) -> torch.device:
    """The GPU that TorchServe gave this worker, the CPU where it gave none or there is none."""
    gpu = properties.get("gpu_id")
    return torch.device(f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu")


def limits(spec: ModelSpec) -> Limits:
    """Upper bounds of one request to this model."""
    bounds = spec.limits
    return Limits(
        bounds.max_bytes,
        bounds.max_pixels,
        max_steps=bounds.max_steps,
        max_samples=bounds.max_samples,
        max_groups=bounds.max_groups,
    )


def remote_segments(spec: ModelSpec, archive: Path, count: Callable[[NeighbourOutcome], None]) -> RemoteSegments:
    """The other models of the server, whose archives are unpacked beside this one; nothing is known of them yet."""
    return RemoteSegments(spec.name, archive, limits(spec), spec.serving.deadline_s, count)
