"""The machine that a record was made on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def machine() -> dict[str, object]:
    """The machine that the numbers were measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
