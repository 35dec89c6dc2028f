"""The memory that this process may still take: the host's, or what its container leaves, whichever is less."""

from __future__ import annotations

from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")

_V1, _V2 = "memory.limit_in_bytes", ("memory.max", "memory.high")


def free_memory(root: Path = ROOT, own: Path = OWN) -> int:
    """Bytes that are free for this process.

    Args:
        root: Mount point of the control groups.
        own: File in which the kernel lists those that the process is in.
    """
    return least_free(psutil.virtual_memory().available, root, own)


def least_free(host: int, root: Path, own: Path) -> int:
    """The least of what the host has free and what each control group leaves, from the process's own to the outermost.

    A group's file cache that is not in use counts as free, for the kernel gives it up first. A group without a limit
    ("max"; in version 1 a number beyond all memory) leaves no bound. A container may see only its own group, mounted
    as the root, under another path than ``own`` tells; what cannot be read bounds nothing.

    Args:
        host: Bytes that the host has free.
        root: Mount point of version 2, or of version 1 with ``memory`` below it.
        own: File of lines ``number:controllers:path``.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    paths = {"": "/", "memory": "/"}
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            paths[controller] = path
    free = [host]
    for top, path in ((root, paths[""]), (root / "unified", paths[""]), (root / "memory", paths["memory"])):
        group = top.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        while True:
            free += _left(group)
            if group == top:
                break
            group = group.parent
    return max(0, min(free))


def _left(group: Path) -> list[int]:
    """Bytes that a group leaves, for each limit that it has."""
    v2 = [limit for name in _V2 if (limit := _number(group / name)) is not None]
    v1 = _number(group / _V1)
    if v2:
        used, cache = _number(group / "memory.current"), _cache(group, "inactive_file")
    else:
        used, cache = _number(group / "memory.usage_in_bytes"), _cache(group, "total_inactive_file")
    if used is None:
        used = 0  # the limit itself still holds
    limits = v2 or ([] if v1 is None else [v1])
    return [limit - max(0, used - cache) for limit in limits]


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no such file, or it says "max"."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _cache(group: Path, name: str) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = (line.split() for line in lines)
    return next((int(field[1]) for field in fields if len(field) == 2 and field[0] == name and field[1].isdigit()), 0)
