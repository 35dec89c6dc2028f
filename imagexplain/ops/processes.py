"""Processes by number and birth: a number alone may be another process's by now."""

from __future__ import annotations

from pathlib import Path

import psutil


def birth(process: psutil.Process) -> float:
    """The start of a process, by the clock that nobody sets: in ticks since the system started, where Linux says so."""
    try:
        return float(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return float(process.create_time())


def alive(pid: int, started: float) -> psutil.Process | None:
    """The process of that number, or None when it has ended, even if another took its number."""
    try:
        process = psutil.Process(pid)
        return process if birth(process) == started and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, TypeError, ValueError, OverflowError):  # the last three: no process has such a number
        return None


def end_all(processes: list[psutil.Process], patience_s: float = 10) -> None:
    """End processes, by force after a while. Raises psutil.AccessDenied for another user's."""
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    for straggler in left:
        try:
            straggler.kill()  # psutil checks that the number still belongs to the same process
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=5)
