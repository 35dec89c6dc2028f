"""What a worker remembers: scores and path integrals of recent images, so that other masks cost no model evaluation."""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b
from typing import Generic, TypeVar

from cachetools import LRUCache
from torch import Tensor

from handlers.attribution.path import PathIntegral

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The values last used, at most so many bytes of them; used by one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[Hashable, tuple[Value, int]] = LRUCache(max_bytes, getsizeof=lambda entry: entry[1])

    def get(self, key: Hashable) -> Value | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Remember a value of so many bytes; one that is larger than the whole cache is not kept."""
        if size <= self._entries.maxsize:
            self._entries[key] = (value, size)

    @property
    def bytes(self) -> int:
        """What the values take."""
        return int(self._entries.currsize)


def digest(*tensors: Tensor) -> bytes:
    """A key for the contents of tensors: equal values, shapes and dtypes, equal digests."""
    state = blake2b(digest_size=20)
    for tensor in tensors:
        state.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.digest()


def size_of(integral: PathIntegral) -> int:
    """Bytes of a path integral's tensors."""
    tensors = [integral.difference, integral.gradient]
    if integral.steps is not None:
        tensors += [integral.steps.gradients, integral.steps.points, integral.steps.weights]
    if integral.absolute is not None:
        tensors.append(integral.absolute)
    return sum(tensor.nbytes for tensor in tensors)
