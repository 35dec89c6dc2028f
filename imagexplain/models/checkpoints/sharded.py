"""Checkpoints in several files, as transformers and accelerate write them: an index names the file of each tensor."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from imagexplain.models.checkpoints.state_dict import CheckpointError

SUFFIX = ".index.json"


def is_index(path: Path) -> bool:
    """Tell if a file is named as an index is."""
    return path.name.lower().endswith(SUFFIX)


def files(index: Path) -> dict[Path, tuple[str, ...]]:
    """Names of the tensors in each file of a checkpoint, the files in alphabetical order.

    Args:
        index: File ``*.index.json``, beside those that it names.

    Raises:
        CheckpointError: not an index, a file outside the index's folder, or one that is not there.
        FileNotFoundError: there is no such index.
    """
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        listed = {str(tensor): str(file) for tensor, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        wanted = "wanted an index of parts, with the file of each tensor in `weight_map`"
        raise CheckpointError(f"{index.name}: {wanted}") from None
    found: dict[Path, tuple[str, ...]] = {}
    for file in sorted(set(listed.values())):
        if Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(f"{index.name}: weight_map: wanted files beside the index, given {file!r}")
        path = index.parent / file
        if not path.is_file():
            raise CheckpointError(f"{index.name}: weight_map: no such file: {path}")
        found[path] = tuple(tensor for tensor, place in listed.items() if place == file)
    if not found:
        raise CheckpointError(f"{index.name}: weight_map: wanted the file of each tensor, given none")
    return found


def named(file: Path, tensors: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Tensors of one part under the names that the index has, whose common prefix the part's reader may have removed.

    Raises:
        CheckpointError: the file has other tensors than the index says.
    """
    any_name = next(iter(tensors))
    for prefix in (name.removesuffix(any_name) for name in names if name.endswith(any_name)):
        renamed = {prefix + name: tensor for name, tensor in tensors.items()}
        if renamed.keys() == set(names):
            return renamed
    missing, unexpected = sorted(set(names) - set(tensors)), sorted(set(tensors) - set(names))
    raise CheckpointError(f"{file.name}: wanted the tensors that the index names", missing, unexpected)
