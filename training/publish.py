"""Demonstration weights as files: float16 safetensors, a report beside each, and the folder's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def publish(path: Path, weights: dict[str, Tensor], report: Mapping[str, Any]) -> None:
    """Write weights with their report, as metadata and as a JSON file, and the folder's page anew."""
    save_file(weights, path, {name: str(value) for name, value in report.items()})
    path.chmod(0o644)  # safetensors writes files for their owner alone
    path.with_suffix(".json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    (path.parent / "README.md").write_text(table(path.parent))


def as_float16(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float16. Variances that it cannot hold to full precision are raised to the smallest that it can.

    A variance that small belongs to a channel that never changes, so its scale is ignored; rounded to 0 it would
    make the channel's residual noise hundreds of times larger.

    Raises:
        ValueError: naming a tensor whose values are not finite, or too large for float16.
    """
    half = torch.finfo(torch.float16)
    small = {}
    for name, tensor in state.items():
        value = tensor.clamp(min=half.smallest_normal) if name.endswith("running_var") else tensor
        if not value.abs().max() <= half.max:
            raise ValueError(f"{name}: wanted finite values up to {half.max:.0f}, given {value.abs().max().item()}")
        small[name] = value.half()
    return small


def table(folder: Path) -> str:
    """The README of a weights folder: a line for each weights file with a report beside it."""
    lines = [
        "# Demonstration weights",
        "",
        "Trained on the synthetic scenes of `training/scenes.py` by the scripts of `training/`, which write this page;",
        "float16, under the names of the authors' checkpoints. Accuracy, average precision (of masks, at an overlap of",
        "one half) and scores of captions are those of these very files on a series that training never reads. Each",
        "file's own metadata says the same.",
        "",
        "| file | network | parameters | bytes | on held-out scenes | recipe | seed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(folder.glob("*.safetensors")):
        if path.with_suffix(".json").exists():
            about = json.loads(path.with_suffix(".json").read_text())
            measured = f"{_measured(about)} of {about['held_out']}"
            lines.append(
                f"| `{path.name}` | {about['architecture']}: {about['dimensions']} | {about['parameters']:,} | "
                f"{path.stat().st_size:,} | {measured} | {about['recipe']} | {about['seed']} |"
            )
    return "\n".join(lines) + "\n"


def _measured(about: Mapping[str, Any]) -> str:
    """The measure of a report, in words."""
    if "cider" in about:
        return f"CIDEr-D {about['cider']:.2f} and BLEU-4 {about['bleu4']:.2f}"
    return f"accuracy {about['accuracy']:.2%}" if "accuracy" in about else f"mask AP50 {about['ap50']:.1%}"
