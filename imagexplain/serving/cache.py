"""A worker's cache: scores and path integrals of recent images, so that other masks cost no model evaluation."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import is_dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np
from cachetools import LRUCache
from torch import Tensor

Value = TypeVar("Value")

MIN_ENTRY_BYTES = 2048
"""Bytes that an entry counts as at least: a key, a tensor's own objects and a place in the table take about 1,000."""


class Cache(Generic[Value]):
    """A cache of the values last used, at most so many bytes of them; for one thread.

    An entry counts as the bytes that its tensors keep alive, and never as less than :data:`MIN_ENTRY_BYTES`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[Hashable, tuple[Value, int]] = LRUCache(max_bytes, getsizeof=lambda entry: entry[1])

    def get(self, key: Hashable) -> Value | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: Hashable, value: Value) -> None:
        """Cache a value, unless it is larger than the whole cache."""
        size = max(size_of(value), MIN_ENTRY_BYTES)
        if size <= self._entries.maxsize:
            self._entries[key] = (value, size)

    @property
    def bytes(self) -> int:
        """Bytes that the entries count as."""
        return int(self._entries.currsize)


def digest(*tensors: Tensor) -> bytes:
    """A digest of the contents of tensors: equal for equal values, shapes and dtypes."""
    state = blake2b(digest_size=20)
    for tensor in tensors:
        state.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.digest()


def size_of(value: object) -> int:
    """Bytes that the tensors and arrays within a value keep alive: their whole storages, each counted once.

    Args:
        value: Tensor, array, or dataclasses and sequences of these; anything else counts as nothing.
    """
    storages: dict[int, int] = {}

    def walk(part: object) -> None:
        if isinstance(part, Tensor):
            storage = part.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, np.ndarray):
            while isinstance(part.base, np.ndarray):
                part = part.base
            storages[part.ctypes.data] = part.nbytes
        elif is_dataclass(part) and not isinstance(part, type):
            for member in vars(part).values():
                walk(member)
        elif isinstance(part, list | tuple):
            for member in part:
                walk(member)

    walk(value)
    return sum(storages.values())
