"""Work that ran out of memory, tried again in smaller chunks: a refusal at last, never a dead worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from imagexplain.errors import RequestError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_CPU_ALLOCATOR = "DefaultCPUAllocator"
"""Name that PyTorch's allocator of the host's memory gives in its errors, which have no type of their own."""


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that memory is exhausted, the device's or the host's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)


def out_of_memory() -> RequestError:
    """The refusal of a request that memory does not suffice for at present."""
    return RequestError(503, "request", "the worker's memory does not suffice for it now; try again, or ask for less")


def halving_chunks(work: Callable[[int], Result], chunk: int) -> Result:
    """The result of ``work(chunk)``; where memory runs out, of half the chunk, and so on down to 1.

    Args:
        work: Function of a chunk that can be called again after it failed.
        chunk: Number of rows that are evaluated at once, at least 1.

    Raises:
        RequestError: 503, not even one row fits.

    Example:
        >>> from imagexplain.serving.out_of_memory import halving_chunks
        >>> def fits_four(chunk):
        ...     if chunk > 4:
        ...         raise MemoryError
        ...     return chunk
        >>> halving_chunks(fits_four, 18)
        4
    """
    while True:
        try:
            return work(chunk)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except clause, whose traceback keeps the failed pass's tensors alive.
        release_cached_memory()
        if chunk == 1:
            raise out_of_memory()
        chunk //= 2
        logger.warning("out of memory: trying again with %d rows at once", chunk)


def release_cached_memory() -> None:
    """Return what PyTorch holds of the GPU's memory without using it; other workers may want it, and larger pieces."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
