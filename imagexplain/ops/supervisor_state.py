"""The supervisor of a run directory: who it is, and its end."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from imagexplain.ops.processes import alive, birth, wait_for_ends

STATE_FILE = "supervisor.json"
END_SECONDS = 30.0
"""Time that a supervisor takes at most to end its server, once it waits for requests no longer."""


@dataclass(frozen=True)
class Supervisor:
    """A running supervisor: its process, and the port of its exporter on the loopback."""

    pid: int
    started: float
    port: int

    def process(self) -> psutil.Process | None:
        """The supervisor's process, or None when it has ended."""
        return alive(self.pid, self.started)

    @property
    def exporter(self) -> str:
        """Base address of readiness and metrics."""
        return f"http://127.0.0.1:{self.port}"

    def end(self, drain_s: float) -> None:
        """Let the supervisor end its server and itself; what is in flight after `drain_s` seconds is given up.

        Raises:
            psutil.AccessDenied: it is another user's.
        """
        process = self.process()
        if process is None:
            return
        for patience in (max(drain_s, 1.0), END_SECONDS):
            process.terminate()  # the second one ends the waiting for requests
            if not wait_for_ends([process], patience):
                return
        process.kill()
        wait_for_ends([process], 5)


def find_supervisor(run: Path) -> Supervisor | None:
    """The supervisor that runs with this run directory, or None."""
    supervisor = _read(run)
    return supervisor if supervisor and supervisor.process() else None


def _read(run: Path) -> Supervisor | None:
    try:
        return Supervisor(**json.loads((run / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def other_supervisor(run: Path) -> Supervisor | None:
    """The supervisor of this run directory, if it is another process than this one."""
    supervisor = find_supervisor(run)
    return supervisor if supervisor and supervisor.pid != os.getpid() else None


def write(run: Path, port: int) -> None:
    """Make this process known as the supervisor. Raises OSError."""
    own = psutil.Process()
    (run / STATE_FILE).write_text(json.dumps(asdict(Supervisor(own.pid, birth(own), port)), indent=2) + "\n")


def forget(run: Path, pid: int) -> None:
    """Remove the state of the supervisor with this process number, and no other's."""
    supervisor = _read(run)
    if supervisor and supervisor.pid == pid:
        (run / STATE_FILE).unlink(missing_ok=True)
