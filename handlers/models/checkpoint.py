"""Checkpoints: reading the authors' files without running what is in them, and giving a model its tensors.

Every name is accounted for. ``num_batches_tracked``, the step counter of a batch norm, is the one entry that is ignored
in both directions: it may be missing and may be there. It carries no weight, and ``eval()`` never reads it.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from handlers.models import detectron2_pickle

WRAPPERS = ("model_state_dict", "state_dict", "model")
"""Keys under which training scripts keep the state dict, beside an optimiser's state or an epoch."""

COUNTER = "num_batches_tracked"

_LISTED = 8

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


class CheckpointError(Exception):
    """A checkpoint that cannot be read, or that does not fit the model.

    Attributes:
        missing: names that the model has and the checkpoint has not.
        unexpected: names that the checkpoint has and the model has not.
        misshapen: (name, wanted shape, given shape) where the two differ.
    """

    def __init__(
        self,
        message: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        misshapen: Iterable[Mismatch] = (),
    ) -> None:
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)
        shapes = [f"{name} (wanted {list(wanted)}, given {list(given)})" for name, wanted, given in self.misshapen]
        parts = [
            _enumerated("missing", self.missing),
            _enumerated("unexpected", self.unexpected),
            _enumerated("wrongly shaped", shapes),
        ]
        super().__init__("; ".join([message, *filter(None, parts)]))


def read(path: Path | str) -> dict[str, Tensor]:
    """The named tensors of a checkpoint file, floats as float32, on the CPU.

    Args:
        path: ``.safetensors``; ``.pth``, ``.pt``, ``.bin`` or ``.tar`` as ``torch.save`` writes them, flat or under one
            of :data:`WRAPPERS`; ``.pkl`` as detectron2 publishes them; or ``.npz``. A ``module.`` in front of every
            name, left by ``DataParallel``, is removed; otherwise names and layouts stay the file's own.

    Raises:
        CheckpointError: unknown suffix, a damaged file, or anything in it that is not a tensor. Nothing in the file
            is executed.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CheckpointError(f"{path.name}: wanted one of {', '.join(_READERS)}, given {path.suffix or 'no suffix'}")
    try:
        content = reader(path)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name}: damaged, or holds more than tensors: {reason}") from error
    return named_tensors(content, path.name)


def named_tensors(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict in what a checkpoint file holds: see :func:`read`.

    Args:
        content: the file's outermost object. What lies beside a state dict under one of :data:`WRAPPERS` is dropped.
        source: the file's name, for messages.

    Raises:
        CheckpointError: no state dict, or something in it that is not a tensor.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{source}: wanted a mapping of names to tensors, given {type(content).__name__}")
    others = [f"{name} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        raise CheckpointError(f"{source}: wanted tensors only; {_enumerated('given', others) or 'given none'}")
    nameless = [repr(name) for name in content if not isinstance(name, str)]
    if nameless:
        raise CheckpointError(f"{source}: wanted text as names; {_enumerated('given', nameless)}")
    # Only where every name has it: stripping some could make two names one.
    parallel = all(name.startswith("module.") for name in content)
    return {
        (name.removeprefix("module.") if parallel else name): _as_float32(tensor.detach())
        for name, tensor in content.items()
    }


def shape(state: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    """The shape of one tensor, from which a model's arguments are inferred.

    Raises:
        CheckpointError: the tensor is missing or has another number of dimensions.
    """
    if name not in state:
        raise CheckpointError(f"wanted a tensor {name}; {_enumerated('given', tuple(state)) or 'given none'}")
    given = tuple(state[name].shape)
    if len(given) != rank:
        raise CheckpointError(f"{name}: wanted {rank} dimensions, given {list(given)}")
    return given


def fill(model: nn.Module, state: Mapping[str, Tensor], name: Callable[[str], str] = str) -> nn.Module:
    """Gives a model, built on the ``meta`` device, the tensors of a checkpoint; returns it in ``eval()``.

    Float32 tensors are shared with ``state``, not copied: weights of 1.5 GB are then in memory once.

    Args:
        model: architecture without weights.
        state: tensors by the checkpoint's names; floats of any width, used as float32.
        name: from a name in ``model.state_dict()`` to the checkpoint's name.

    Raises:
        CheckpointError: listing every missing, unexpected and wrongly shaped tensor.
    """
    wanted = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith(COUNTER)}
    given = {key: tensor for key, tensor in state.items() if not key.endswith(COUNTER)}
    shapes = {name(key): tuple(tensor.shape) for key, tensor in wanted.items()}
    missing = [key for key in shapes if key not in given]
    unexpected = [key for key in given if key not in shapes]
    misshapen = [
        (key, shapes[key], tuple(tensor.shape))
        for key, tensor in given.items()
        if key in shapes and tuple(tensor.shape) != shapes[key]
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError("the checkpoint does not fit the model", missing, unexpected, misshapen)
    weights = {key: given[name(key)].to(tensor.dtype) for key, tensor in wanted.items()}
    counters = {key: torch.tensor(0) for key in model.state_dict() if key.endswith(COUNTER)}
    model.load_state_dict(weights | counters, assign=True)
    return model.eval()


def exported(model: nn.Module, name: Callable[[str], str] = str) -> dict[str, Tensor]:
    """The reverse of :func:`fill`: a model's tensors under the checkpoint's names, detached, on the CPU."""
    return {
        name(key): tensor.detach().cpu().contiguous()
        for key, tensor in model.state_dict().items()
        if not key.endswith(COUNTER)
    }


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_numpy(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": load_file,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".tar": _read_torch,
    ".npz": _read_numpy,
    ".pkl": detectron2_pickle.load,
}

# What the readers raise on a damaged or hostile file, seen by giving them such files.
_UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
)


def _enumerated(title: str, names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return f"{title}: {', '.join(names[:_LISTED])}{more}"
