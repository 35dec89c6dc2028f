"""Checkpoints: reading the authors' files without running what is in them, and giving a model its tensors.

Every name is accounted for. ``num_batches_tracked``, the step counter of a batch norm, is the one entry that is ignored
in both directions: it may be missing and may be there. It carries no weight, and ``eval()`` never reads it.
"""

from __future__ import annotations

import json
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from imagexplain.models.checkpoints import detectron2_pickle, sharded, torch_file
from imagexplain.models.checkpoints.state_dict import CheckpointError, StateDict, enumerated, state_dict

__all__ = ["CheckpointError", "StateDict", "exported", "fill", "load", "notes", "read", "shape", "shared"]

COUNTER = "num_batches_tracked"

ALIGNMENT = 64
"""Alignment of torch's own allocations on a CPU, in bytes."""

NOTES = "checkpoint"
"""Key in the metadata of the safetensors files that archives carry, see :func:`notes`."""


def read(path: Path | str) -> dict[str, Tensor]:
    """Tensors from :func:`load`, whose argument and errors these are."""
    return load(path).tensors


def load(path: Path | str) -> StateDict:
    """Read the named tensors of a checkpoint file, floats as float32, on the CPU, and where they lay in it.

    Args:
        path: File: ``.safetensors``; ``.pth``, ``.pt``, ``.th``, ``.bin``, ``.ckpt`` or ``.tar`` as ``torch.save``
            writes them, flat, in parts, or under one of :data:`state_dict.WRAPPERS`, beside whatever else; ``.pkl`` as
            detectron2 publishes them; ``.npz``; or ``.index.json``, the index of several of these that lie beside it.
            A prefix of all names that a trainer left, one of
            :data:`state_dict.PREFIXES`, is removed; otherwise names and layouts stay the file's own.

    Raises:
        CheckpointError: unknown suffix, a damaged file, one that holds no weights, or a state dict with something in
            it that is not a tensor. Nothing in the file is executed.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path.name}: wanted a file, given a folder")
    if sharded.is_index(path):
        parts = {file: (load(file).tensors, names) for file, names in sharded.files(path).items()}
        joined = [sharded.named(file, tensors, names) for file, (tensors, names) in parts.items()]
        return state_dict({name: tensor for part in joined for name, tensor in part.items()}, path.name)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CheckpointError(f"{path.name}: wanted one of {', '.join(_READERS)}, given {path.suffix or 'no suffix'}")
    try:
        _check_start(path)
        return reader(path)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path.name}: damaged, or holds more than tensors: {reason}") from error


def shape(state: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    """Shape of one tensor, from which a model's arguments are inferred.

    Raises:
        CheckpointError: the tensor is missing or has another number of dimensions.
    """
    if name not in state:
        raise CheckpointError(f"wanted a tensor {name}; {enumerated('given', tuple(state)) or 'given none'}")
    given = tuple(state[name].shape)
    if len(given) != rank:
        raise CheckpointError(f"{name}: wanted {rank} dimensions, given {list(given)}")
    return given


def fill(model: nn.Module, state: Mapping[str, Tensor], name: Callable[[str], str] = str) -> nn.Module:
    """Give a model, built on the ``meta`` device, the tensors of a checkpoint; return it in ``eval()``.

    Float32 tensors are shared with ``state``, not copied: weights of 1.5 GB are then in memory once. Only those that a
    file's layout leaves at an odd address are copied, see :func:`aligned`.

    Args:
        model: Architecture without weights.
        state: Tensors by the checkpoint's names; floats of any width, used as float32.
        name: Function from a name in ``model.state_dict()`` to the checkpoint's name.

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
    placed: dict[Any, Tensor] = {}  # one for all names of a tensor
    for tensor in given.values():
        if _identity(tensor) not in placed:
            placed[_identity(tensor)] = aligned(tensor)
    weights = {key: placed[_identity(given[name(key)])].to(tensor.dtype) for key, tensor in wanted.items()}
    counters = {key: torch.tensor(0) for key in model.state_dict() if key.endswith(COUNTER)}
    complete = model.state_dict()
    complete.update(weights | counters)  # with the versions of its modules, which some of them ask for
    model.load_state_dict(complete, assign=True)
    return model.eval()


def aligned(tensor: Tensor) -> Tensor:
    """Align a tensor: copy it unless it begins where torch lets tensors begin, at a multiple of :data:`ALIGNMENT`.

    Tensors of a safetensors file lie where its header's length puts them. Libraries choose among kernels by alignment,
    so that the same weights could give other roundings from one file than from another.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def exported(model: nn.Module, name: Callable[[str], str] = str) -> dict[str, Tensor]:
    """Tensors of a model under the checkpoint's names, detached, on the CPU: the reverse of :func:`fill`."""
    return {
        name(key): tensor.detach().cpu().contiguous()
        for key, tensor in model.state_dict().items()
        if not key.endswith(COUNTER)
    }


def shared(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a state dict, each under the first of its names in alphabetical order, and the other names.

    Returns:
        The tensors, and from each further name to that of its tensor; :func:`notes` carries these.
    """
    first: dict[Any, str] = {}
    names = {name: first.setdefault(_identity(state[name]), name) for name in sorted(state)}
    kept = {name: state[name] for name, stored in names.items() if name == stored}
    return kept, {name: stored for name, stored in names.items() if name != stored}


def notes(taken: str, others: Mapping[str, str]) -> dict[str, str]:
    """Metadata for a safetensors file, empty where there is nothing to note: one entry, since several have no order.

    Args:
        taken: Keys under which the weights lay in the checkpoint, see :class:`StateDict`.
        others: Further names of stored tensors, see :func:`shared`; :func:`load` gives them back.
    """
    content = {"taken": taken, "shared": dict(others)}
    kept = {key: value for key, value in content.items() if value}
    return {NOTES: json.dumps(kept, sort_keys=True)} if kept else {}


def _identity(tensor: Tensor) -> Any:
    """Key that is equal for two tensors that show the same numbers of the same memory."""
    where = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return *where, tensor.dtype, tuple(tensor.shape), tensor.stride()


def _check_start(path: Path) -> None:
    """Refuse what downloads leave in the place of weights.

    Raises:
        CheckpointError: an empty file, the pointer of Git LFS, or a page of text.
    """
    with path.open("rb") as file:
        start = file.read(200)
    if not start:
        raise CheckpointError(f"{path.name}: damaged, or holds more than tensors: the file is empty")
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        raise CheckpointError(f"{path.name}: wanted weights, given the pointer of Git LFS to them: git lfs pull")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<!", b"<?", b"<h", b"<H")):
        raise CheckpointError(f"{path.name}: wanted weights, given a page of HTML or XML: the download failed")


def _read_safetensors(path: Path) -> StateDict:
    with safe_open(path, framework="pt") as file:
        others = json.loads((file.metadata() or {}).get(NOTES, "{}")).get("shared", {})
    tensors = load_file(path)
    return state_dict(tensors | {name: tensors[other] for name, other in others.items()}, path.name)


def _read_numpy(path: Path) -> StateDict:
    with np.load(path, allow_pickle=False) as arrays:
        return state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files}, path.name)


def _read_pickle(path: Path) -> StateDict:
    return state_dict(detectron2_pickle.load(path), path.name)


_READERS: dict[str, Callable[[Path], StateDict]] = {
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".th", ".bin", ".ckpt", ".tar"), torch_file.load),
    ".npz": _read_numpy,
    ".pkl": _read_pickle,
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
