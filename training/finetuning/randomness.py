"""Random numbers as a function of their purpose: a step draws the same ones in a run that was interrupted before it.

Every draw is preceded by seeds made of the run's seed and the draw's place (epoch, step, image), so that nothing has to
be remembered between steps. Three generators are concerned: those of torch, of NumPy and of Python, for timm draws from
all of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def seed_of(*key: int | str) -> int:
    """Seed in 0 … 2^63 − 1 that any part of the key changes."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 1


def seed_all(*key: int | str) -> None:
    """Seed the generators of torch, NumPy and Python."""
    seed = seed_of(*key)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the generator that timm draws from)
    random.seed(seed)


def shuffled(count: int, *key: int | str) -> Tensor:
    """Numbers 0 … count − 1 in the random order of a key, (count,) int64."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(*key)))


@contextmanager
def private_randomness() -> Iterator[None]:
    """Leave the generators, at the end, as they were at the beginning."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
