"""ONNX programs, whatever wrote them, as networks of PyTorch's operations: onnx2pytorch translates them.

A file holds operators and weights, no code. Gradients pass through the translation as through the network itself; the
names of its nodes are the exporter's own, so that it shows no layers.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch

from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.programs.program import Program

NO_LAYERS = "the nodes of an ONNX program are no layers of the network that it was exported from"


def load(path: Path, device: torch.device) -> Program:
    """Load a program; see :func:`imagexplain.models.programs.load`."""
    model = read(path)
    inputs = _inputs(model)
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise CheckpointError(f"{path.name}: wanted one input, images (B, C, H, W), given {inputs or 'none'}")
    (batch, _, height, width) = inputs[0]
    if isinstance(batch, int) and batch != 1:
        wanted = "wanted a program of one image or of any number, exported with a dynamic first axis"
        raise CheckpointError(f"{path.name}: {wanted}; given one of {batch} images at once")
    from onnx2pytorch import ConvertModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of copies that it makes
            network = ConvertModel(_without_copies(model)).to(device)
    except Exception as error:  # whatever a library raises of an operator that it does not know
        wanted = "wanted operators that onnx2pytorch translates"
        raise CheckpointError(f"{path.name}: {wanted}: {type(error).__name__}: {error}") from error
    unseen = dict.fromkeys(("module", "attention", "nonlinearities"), NO_LAYERS)
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Program(network, unseen, most=1 if batch == 1 else None, size=size)


def read(path: Path) -> Any:
    """The program of a file, with the weights that its exporter put into files beside it.

    Raises:
        CheckpointError: a file that holds none, or whose weights are missing.
        ImportError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"{path.name}: wanted the packages of the extra `onnx`: pip install 'imagexplain[onnx]'"
        ) from error
    try:
        return onnx.load(str(path))
    except Exception as error:  # whatever protobuf raises of a file that is none
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path.name}: wanted an ONNX program with its weights: {first}") from error


def _inputs(model: Any) -> list[list[int | str]]:
    """Shape of each input that is no weight: numbers, and names of sides that are not fixed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        [side.dim_value if side.HasField("dim_value") else side.dim_param for side in given.type.tensor_type.shape.dim]
        for given in model.graph.input
        if given.name not in weights
    ]


def _without_copies(model: Any) -> Any:
    """The program with each weight under all its names: exporters write equal ones once, and nodes that copy it."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        tensor = copy.deepcopy(weights[node.input[0]])
        tensor.name = node.output[0]
        weights[tensor.name] = tensor
        graph.initializer.append(tensor)
        graph.node.remove(node)
    return model
