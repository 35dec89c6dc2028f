"""The C allocator's settings for a worker that computes the same thing again and again."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD = -1  # glibc's malloc.h
_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, instead of returning it to the system and asking for it again.

    glibc maps every large tensor anew, and the system clears each of its pages at the first touch: a fifth of the time
    of a full-size LaNet explanation. Kept, memory stays at its peak, which the next chunk reaches again anyway.

    Returns:
        Whether the allocator took the settings; False where it is not glibc's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, -1))  # never trim


def return_freed_memory() -> None:
    """Return to the system what is free now: what a worker needed to load and to measure its model.

    The first request asks for some of it again; between requests nothing is returned.
    """
    with suppress(OSError, AttributeError):  # an allocator that is not glibc's
        ctypes.CDLL(None).malloc_trim(0)
