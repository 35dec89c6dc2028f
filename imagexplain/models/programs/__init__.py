"""Saved programs: networks that need no class, for one file has both what they compute and their weights.

Loading such a file and running it runs what is in it: it is to be trusted like the service's own code. Each module here
has a ``load(path, device)`` for one kind of file.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from imagexplain.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from imagexplain.models.programs.program import Program

PROGRAMS = ("torchscript", "exported", "onnx")
"""Architectures whose weights are a program: what ``torch.jit.save``, ``torch.export.save`` and ONNX exporters write.
Each has a module of its name here, imported by need."""

FILES = {"torchscript": "model.pt", "exported": "model.pt2", "onnx": "model.onnx"}
"""Names of the programs' files in an archive."""

ARGUMENTS = ("batch",)
"""Arguments of a program: the number of images, 1, that one takes at once which does not say so itself."""


def load(kind: str, path: Path, arguments: Mapping[str, Any], device: torch.device) -> Program:
    """Load a program, in ``eval()``: images (B, C, H, W) to whatever it returns for them.

    Args:
        kind: One of :data:`PROGRAMS`.
        path: Its file, as it was saved.
        arguments: Arguments, some of :data:`ARGUMENTS`.
        device: Device on which it will run.

    Raises:
        ArgumentError: arguments that it does not take.
        CheckpointError: a file that holds no such program, or one that takes something else than images.
    """
    others = [name for name in arguments if name not in ARGUMENTS]
    if others:
        raise ArgumentError("arguments", f"a program takes {', '.join(ARGUMENTS)} alone, given {', '.join(others)}")
    batch = arguments.get("batch")
    if batch not in (None, 1):
        raise ArgumentError(
            "arguments", f"batch: wanted 1, for a program that takes one image at once, given {batch!r}"
        )
    program = cast("Program", import_module(f"imagexplain.models.programs.{kind}").load(path, device))
    return program if batch is None else program.one_by_one()


def carry(path: Path, target: Path) -> None:
    """Write a program's file into an archive, under one of :data:`FILES`: as it is, but with all of its weights."""
    if target.name != FILES["onnx"]:
        shutil.copyfile(path, target)
        return
    from imagexplain.models.programs import onnx

    target.write_bytes(onnx.read(path).SerializeToString(deterministic=True))


__all__ = ["ARGUMENTS", "FILES", "PROGRAMS", "carry", "load"]
