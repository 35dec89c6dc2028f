"""State dict in what a checkpoint file holds: under the wrappers and prefixes that trainers add.

Of several state dicts the averaged one is taken, as timm does: it is the one that was evaluated when the checkpoint was
chosen. Which one it was is told with the tensors.

A model of several parts may be saved as a mapping of each part's name to its state dict, ``{part: {name: tensor}}``, as
asg2cap does: that is one state dict of the names ``part.name``, if nothing but such parts is in it.

Provenance: the names are facts of the trainers that write them: timm (https://github.com/huggingface/pytorch-image-models,
Apache-2.0), mmengine and mmdet (https://github.com/open-mmlab, Apache-2.0), Lightning, DINO, MAE, DeepSpeed, PyTorch's
own ``DataParallel``, ``compile`` and ``AveragedModel``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from imagexplain.plain_text import escaped

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "params_ema", "ema_model", "ema")
"""Keys of weights that were averaged over training; they win over :data:`RAW`, in timm's order."""

RAW = (
    *("model_state_dict", "state_dict", "model", "model_state", "module", "network", "net", "weights", "params"),
    # A teacher that is an average of its student comes first of the two; one that a model learnt from, after the model.
    *("teacher", "student"),
)

WRAPPERS = (*AVERAGED, *RAW)
"""Keys under which training scripts keep a state dict, beside an optimiser's state or an epoch; the first is taken."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
"""Prefixes that a trainer's wrapper around the network puts in front of every name."""

AVERAGING_COUNTER = "n_averaged"
"""Name of the one entry of ``AveragedModel`` that is not of the network, a count."""

_MAX_DEPTH = 3
_LISTED = 8

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


class CheckpointError(Exception):
    """A checkpoint that cannot be read, or that does not fit the model. The message is fit for a terminal.

    Attributes:
        missing: Names that the model has and the checkpoint has not.
        unexpected: Names that the checkpoint has and the model has not.
        misshapen: Triples (name, wanted shape, given shape) where the two shapes differ.
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
            enumerated("missing", self.missing),
            enumerated("unexpected", self.unexpected),
            enumerated("wrongly shaped", shapes),
        ]
        super().__init__(escaped("; ".join([message, *filter(None, parts)])))


@runtime_checkable
class Stored(Protocol):
    """A tensor that is still in its file."""

    def load(self) -> Tensor:
        """Load the tensor, which may share memory with others of the file."""


@dataclass(frozen=True)
class StateDict:
    """Weights of a checkpoint file.

    Attributes:
        tensors: Tensors by name, floats as float32, on the CPU; those that share memory in the file share it here.
        taken: Keys under which they lie, such as ``state_dict_ema``; empty where nothing is around them.
        beside: Keys of the other state dicts of the file, which are not taken.
        classes: Names of the classes by index, as the file has them; None where it does not say.
    """

    tensors: dict[str, Tensor]
    taken: str = ""
    beside: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None


def state_dict(content: Any, source: str) -> StateDict:
    """Find the state dict in what a checkpoint file holds.

    Args:
        content: Outermost object of the file; tensors, or :class:`Stored` ones, of which only those taken are loaded.
            What lies beside the state dict is dropped.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: no state dict, or something in it that is not a tensor.
    """
    found = list(_found(content, ()))
    taken, names = found[0] if found else ((), _innermost(content))
    names = _joined(names, source) if _in_parts(names) else names
    if not isinstance(names, Mapping):
        stands_for = getattr(names, "stands_for", None)
        if stands_for is None:
            given = type(names).__name__
            raise CheckpointError(f"{source}: wanted a mapping of names to tensors, given {given}")
        raise CheckpointError(f"{source}: wanted a state dict, given an object of {stands_for}, {_SAVE_STATE}")
    others = [
        f"{name} ({type(value).__name__})" for name, value in names.items() if not isinstance(value, Tensor | Stored)
    ]
    if others or not names:
        given = enumerated("given", others) or "given none"
        unbuilt = dict.fromkeys(value.stands_for for value in names.values() if hasattr(value, "stands_for"))
        why = f"; {enumerated('objects of', unbuilt)}, {_SAVE_STATE}" if unbuilt else ""
        raise CheckpointError(f"{source}: damaged, or holds more than tensors: wanted tensors only; {given}{why}")
    nameless = [repr(name) for name in names if not isinstance(name, str)]
    if nameless:
        raise CheckpointError(f"{source}: wanted text as names; {enumerated('given', nameless)}")
    tensors = {name: _loaded(value, source, name) for name, value in _unprefixed(names).items()}
    beside = tuple(dict.fromkeys("/".join(path) for path, _ in found[1:] if path))
    return StateDict(tensors, "/".join(taken), beside, _classes(content))


def named_tensors(content: Any, source: str) -> dict[str, Tensor]:
    """Tensors from :func:`state_dict`, whose arguments and errors these are."""
    return state_dict(content, source).tensors


def enumerated(title: str, names: Iterable[str]) -> str:
    """First of these names after a title, and how many there are; empty for none."""
    names = list(names)
    if not names:
        return ""
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return f"{title}: {', '.join(names[:_LISTED])}{more}"


_SAVE_STATE = "which is not built here: save the weights alone, torch.save(model.state_dict(), file)"


def _found(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Mappings that hold tensors, with the keys that lead to them, the one to take first."""
    if not isinstance(content, Mapping):
        return
    if len(path) < _MAX_DEPTH:
        for wrapper in WRAPPERS:
            yield from _found(content.get(wrapper), (*path, wrapper))
    if any(isinstance(value, Tensor | Stored) for value in content.values()) or _in_parts(content):
        yield path, content


def _in_parts(content: Any) -> bool:
    """Tell if this is a mapping of parts, each a state dict; a wrapper's key is no part's name."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and not any(name in WRAPPERS for name in content)
        and all(isinstance(part, Mapping) and part for part in content.values())
        and all(isinstance(value, Tensor | Stored) for part in content.values() for value in part.values())
    )


def _joined(parts: Mapping[Any, Mapping[Any, Any]], source: str) -> dict[str, Any]:
    """State dict of a model that is saved in parts, under the names ``part.name``."""
    nameless = [repr(name) for names in (parts, *parts.values()) for name in names if not isinstance(name, str)]
    if nameless:
        raise CheckpointError(f"{source}: wanted text as names; {enumerated('given', nameless)}")
    entries = [(f"{part}.{name}", value) for part, names in parts.items() for name, value in names.items()]
    if len(joined := dict(entries)) < len(entries):
        twice = sorted({name for name, _ in entries if sum(other == name for other, _ in entries) > 1})
        raise CheckpointError(f"{source}: wanted each name once; {enumerated('given twice', twice)}")
    return joined


def _innermost(content: Any) -> Any:
    """Object at the place where a state dict was looked for, so that a message can say what it is."""
    for _ in range(_MAX_DEPTH):
        inner = [content[wrapper] for wrapper in WRAPPERS if isinstance(content, Mapping) and wrapper in content]
        mappings = [value for value in inner if isinstance(value, Mapping)]
        if not mappings:
            return content
        content = mappings[0]
    return content


def _unprefixed(names: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the prefixes that all of them have: taken from some only, a prefix could make two names one."""
    if any(name.startswith("module.") for name in names):
        inner = {name: value for name, value in names.items() if name != AVERAGING_COUNTER}
        names = inner if all(name.startswith("module.") for name in inner) else names
    state = dict(names)
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _loaded(value: Tensor | Stored, source: str, name: str) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else value.load()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if tensor.is_quantized or tensor.is_complex() or tensor.layout is not torch.strided:
        raise CheckpointError(f"{source}: {name}: wanted real numbers, dense, given {tensor.dtype}, {tensor.layout}")
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _classes(content: Any) -> tuple[str, ...] | None:
    """Class names by index, where a trainer stored them: mmdet in its meta, others under the keys of tutorials."""
    if not isinstance(content, Mapping):
        return None
    meta = content.get("meta")
    inner = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    for place in (inner, meta, content):
        if not isinstance(place, Mapping):
            continue
        for key in ("classes", "CLASSES", "class_names"):
            names = place.get(key)
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
        indices = place.get("class_to_idx")
        if isinstance(indices, Mapping) and all(type(index) is int for index in indices.values()):
            ordered = sorted(indices, key=lambda name: indices[name])
            if ordered and [indices[name] for name in ordered] == list(range(len(ordered))):
                return tuple(map(str, ordered))
    return None
