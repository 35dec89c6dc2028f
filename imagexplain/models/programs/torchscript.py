"""TorchScript programs, which ``torch.jit.save`` writes, of a network that was scripted or traced.

``torch.jit.load`` unpickles nothing of Python's: the file has code of TorchScript's own language. Its operators can
read and write files all the same (``aten::save`` is one), so that running a program is trusting it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.programs.program import Program

NO_LAYERS = "a TorchScript program shows no layers"


def load(path: Path, device: torch.device) -> Program:
    """Load a program; see :func:`imagexplain.models.programs.load`."""
    try:
        program = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        wanted = "wanted a program that torch.jit.save wrote"
        raise CheckpointError(f"{path.name}: {wanted}, and torch.jit.load says: {first}") from error
    unseen = dict.fromkeys(("module", "attention", "nonlinearities"), NO_LAYERS)
    return Program(program, unseen, devices=_devices(program))


def _devices(program: torch.jit.ScriptModule) -> tuple[str, ...]:
    """Devices that the code names, as a traced network does of the one on which it was traced."""
    graph: Any = program.inlined_graph
    constants = [node for node in graph.findAllNodes("prim::Constant") if node.hasAttribute("value")]
    return tuple(sorted({node.s("value") for node in constants if node.output().type().kind() == "DeviceObjType"}))
