"""Workers that are copies of one process, started for a server: :mod:`imagexplain.ops.worker_template` says why."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from imagexplain.ops import worker_launcher, worker_template
from imagexplain.ops.processes import end_all

SWITCH = "IMAGEXPLAIN_FORK_WORKERS"
"""Variable of the environment that says 0 for workers that start from nothing, each its own interpreter."""

LISTENING_SECONDS = 10.0

PID_FILE = "template.pid"

GPU = Path("/dev/nvidiactl")

START = "import sys; sys.executable = sys.argv.pop(1); from ts.model_server import start; start()"
"""TorchServe's start, which has its workers run by the interpreter that runs it."""


def can_fork() -> bool:
    """Tell whether workers can be copies: on Linux, without a GPU, whose driver was never tried behind a fork."""
    return hasattr(os, "pidfd_open") and not GPU.exists() and os.environ.get(SWITCH) != "0"


def command(run: Path, scratch: Path, environment: Mapping[str, str]) -> list[str]:
    """Command line of TorchServe without its arguments; where workers can be copies, their template is started.

    Args:
        run: Directory of the server's state, where workers find its key file as their parent's own directory.
        scratch: Directory of the server's temporary files, short of name, with TorchServe's pid file.
        environment: Environment of the server.
    """
    if not can_fork():
        return [sys.executable, "-m", "ts.model_server"]
    address = scratch / "template"
    with (run / "logs" / "template.log").open("w") as output:
        template = subprocess.Popen(
            [sys.executable, "-P", worker_template.__file__, str(address), str(scratch / ".model_server.pid")],
            cwd=run,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (scratch / PID_FILE).write_text(str(template.pid))
    waited_until = time.monotonic() + LISTENING_SECONDS
    while not address.is_socket() and time.monotonic() < waited_until:
        time.sleep(0.02)  # who finds no template starts from nothing
    launcher = scratch / "python"
    parts = (sys.executable, "-I", "-S", worker_launcher.__file__, str(address))
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(parts)} "$@"\n')
    launcher.chmod(0o700)
    return [sys.executable, "-c", START, str(launcher)]


def end(scratch: Path) -> None:
    """End a server's template, and with it the copies, if there is one."""
    with suppress(psutil.Error):
        end_all(family(scratch), patience_s=0)


def family(scratch: Path) -> list[psutil.Process]:
    """The template and its copies, as far as they live; the template ends by itself, once the server has ended."""
    template = _template(scratch)
    try:
        return [template, *template.children()] if template else []
    except psutil.Error:
        return []


def copies(scratch: Path) -> list[psutil.Process]:
    """The copies that live, each with the command line that TorchServe meant, see :func:`words_of`."""
    return family(scratch)[1:]


def _template(scratch: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(int((scratch / PID_FILE).read_text()))
        return process if worker_template.__file__ in process.cmdline() else None
    except (OSError, ValueError, psutil.Error):
        return None


def words_of(process: psutil.Process) -> list[str]:
    """The words of a process's command line, that of a copy included, which is in one piece."""
    return " ".join(process.cmdline()).split()
