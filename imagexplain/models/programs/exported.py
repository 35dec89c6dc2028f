"""Exported programs, which ``torch.export.save`` writes (``.pt2``).

``torch.export.load`` would unpickle what a file holds as pickles, and evaluates the expressions of its shapes. Here a
file whose pickles hold more than tensors is refused before it is loaded; its expressions and operations are run all the
same, so that the file is to be trusted.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.programs.program import ONE_BY_ONE, Program

OBJECTS = ("custom_obj_", "opaque_obj_")
"""Beginnings of the names of records that hold pickled objects of other classes."""

FUNCTIONS = "an exported program calls torch's operators itself, so that functions within its layers are not seen"
NO_LAYERS = "the layers of this exported program cannot be told apart"

LEAST_DYNAMIC = 2
"""Lower bound of a batch that torch states of any number: it takes one image, too."""


def load(path: Path, device: torch.device) -> Program:
    """Load a program; see :func:`imagexplain.models.programs.load`."""
    try:
        _check_pickles(path)
        program = _moved(_load(path), device)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a library raises of a file that is none
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        wanted = "wanted a program that torch.export.save wrote"
        raise CheckpointError(f"{path.name}: {wanted}, and it cannot be loaded: {first}") from error
    images = _images(path, program)
    most = _most(path, program, images)
    layered = _with_layers(program) if most is None else None
    unseen = dict.fromkeys(("attention", "nonlinearities"), FUNCTIONS)
    if layered is None:
        unseen["module"] = NO_LAYERS if most is None else ONE_BY_ONE
    quick, (height, width) = program.module(), images.shape[2:]
    if layered is not None:
        _share_weights(quick, layered)
    return Program(
        layered or quick,
        unseen,
        quick=None if layered is None else quick,
        most=most,
        size=(height, width) if isinstance(height, int) and isinstance(width, int) else None,
    )


def _load(path: Path) -> ExportedProgram:
    """Load the program without the warnings of a logger that names places in torch alone."""
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        with path.open("rb") as file:
            return torch.export.load(io.BytesIO(file.read()))
    finally:
        logger.disabled = before


def _check_pickles(path: Path) -> None:
    """Refuse a file whose pickles hold more than tensors, or machine code.

    Raises:
        CheckpointError: naming the record.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = {record for name in names if name.endswith("_config.json") for record in _pickled(archive, name)}
        for name in names:
            record = name.rpartition("/")[2]
            if record.startswith("serialized_"):
                wanted = "wanted the format that torch.export.save writes since torch 2.8"
                raise CheckpointError(f"{path.name}: {wanted}, given an older one: save it anew")
            if record.startswith(OBJECTS):
                wanted = "wanted a program of torch's own operators on tensors"
                raise CheckpointError(f"{path.name}: {wanted}, given one with a pickled object, {name}")
            if "/data/aotinductor/" in name:
                raise CheckpointError(f"{path.name}: wanted a program, given machine code of AOTInductor, {name}")
            if name.endswith(".pt") or name in pickled:
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except Exception as error:
                    wanted = "wanted a pickle of tensors alone, for which nothing is run"
                    raise CheckpointError(f"{path.name}: {name}: {wanted}") from error


def _pickled(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Names of the records that a table of weights or constants says are pickles."""
    folder = name.rpartition("/")[0]
    entries = json.loads(archive.read(name))["config"].values()
    return [f"{folder}/{entry['path_name']}" for entry in entries if entry["use_pickle"]]


def _moved(program: ExportedProgram, device: torch.device) -> ExportedProgram:
    """The program on a device, where it names another one or its weights lie there."""
    values = [value for node in program.graph.nodes for value in (*node.args, *node.kwargs.values())]
    named = {str(value) for value in values if isinstance(value, torch.device)}
    named |= {str(tensor.device) for tensor in program.state_dict.values()}
    return program if named <= {str(device)} else move_to_device_pass(program, str(device))


def _images(path: Path, program: ExportedProgram) -> Tensor:
    """Outline of the images that the program takes: its only input, whose sides are numbers or symbols."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    inputs = [node.meta.get("val") for node in nodes]
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        (images,) = inputs
        if images.ndim == 4 and images.dtype is torch.float32:
            return images
    given = ", ".join(f"{list(one.shape)} {one.dtype}" if isinstance(one, Tensor) else str(one) for one in inputs)
    raise CheckpointError(f"{path.name}: wanted a program of one input, float32 images (B, C, H, W), given {given}")


def _most(path: Path, program: ExportedProgram, images: Tensor) -> int | None:
    """Largest number of images that the program takes at once; None for any.

    Raises:
        CheckpointError: it does not take one alone.
    """
    batch: Any = images.shape[0]  # a number or a symbol
    if isinstance(batch, int):
        if batch == 1:
            return 1
        least, most = batch, str(batch)
    else:
        bounds = program.range_constraints[batch.node.expr]
        least, most = int(bounds.lower), str(bounds.upper)
        if least <= LEAST_DYNAMIC:
            return int(most) if most.isdecimal() else None
    wanted = 'wanted a program of one image or of any number: dynamic_shapes={"x": {0: torch.export.Dim("batch")}}'
    raise CheckpointError(f"{path.name}: {wanted}; given one of {least} to {most} images at once")


def _with_layers(program: ExportedProgram) -> nn.Module | None:
    """The program as the modules that it was made of, slower than as one graph; None where it does not tell."""
    try:
        return torch.export.unflatten(program)
    except Exception:  # whatever it raises of a graph that it cannot take apart; one graph does without
        return None


def _share_weights(quick: nn.Module, layered: nn.Module) -> None:
    """Let both forms of a program have one memory for their weights, which have the same names."""
    tensors = {**dict(layered.named_parameters()), **dict(layered.named_buffers())}
    for name, tensor in (*quick.named_parameters(), *quick.named_buffers()):
        if name in tensors:
            tensor.data = tensors[name].data
