"""Processes by number and birth: a number alone may be another process's by now."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

LOOK_SECONDS = 0.02


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
        return process if birth(process) == started and _runs(process) else None
    except (psutil.Error, TypeError, ValueError, OverflowError):  # the last three: no process has such a number
        return None


def end_all(processes: list[psutil.Process], patience_s: float = 10) -> None:
    """End processes, by force after a while. Raises psutil.AccessDenied for another user's."""
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    for straggler in wait_for_ends(processes, patience_s):
        try:
            straggler.kill()  # psutil checks that the number still belongs to the same process
        except psutil.NoSuchProcess:
            continue
    wait_for_ends(processes, 5)


def wait_for_ends(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """The processes that have not ended after so many seconds.

    One that has ended with all its threads, and that its parent has yet to ask about, counts as ended: in a container,
    the first process may take its time, or never ask.
    """
    ends = time.monotonic() + seconds
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < ends:
        time.sleep(LOOK_SECONDS)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        if not process.is_running():
            return False
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False
