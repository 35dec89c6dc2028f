"""A process that has imported what every worker needs, and copies itself for each worker (a fork server, or zygote).

TorchServe starts an interpreter for each worker, and each imports PyTorch anew: seconds of a core, and 290 MB of memory
before a model is loaded, two thirds of it tables of the CUDA libraries. Copies of one process share those pages until
they write to them. Python's own ``multiprocessing`` has such a server, but its children run functions, not programs.

Run as a program, ``python -P worker_template.py SOCKET PID_FILE [MODULE …]``, with the modules to import, of which one
that is not installed is left out. Of this package it imports nothing, because each archive brings its own. It ends with
the process whose number stands in the file, and its workers with it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

LENGTH = struct.Struct("!I")
ACCEPTED = 2**32 - 1
"""Word of a worker to its launcher, as :mod:`imagexplain.ops.worker_launcher` has it."""
PATIENCE_SECONDS = 120.0
"""Time within which the server must have started."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Child:
    """A worker.

    Attributes:
        pid: Process number.
        launcher: Connection to the process that TorchServe takes for it.
    """

    pid: int
    launcher: socket.socket


def main(address: str, pid_file: str, modules: Sequence[str]) -> None:
    """Serve copies until the server has ended."""
    wakes, wakened = socket.socketpair()
    wakes.setblocking(False)
    wakened.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakened.fileno())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        umask = os.umask(0o177)  # who may connect, may run what he likes as this user
        listener.bind(address)
        os.umask(umask)
        listener.listen(128)  # before the imports: who comes meanwhile waits
        for name in modules:
            with suppress(ImportError):
                importlib.import_module(name)
        if "setproctitle" in sys.modules:  # which looks for its place before an environment is changed
            sys.modules["setproctitle"].getproctitle()
        gc.collect()
        gc.freeze()  # a collection in a worker would write to every page that it looks at
        _serve(listener, wakes, Path(pid_file))


def _serve(listener: socket.socket, wakes: socket.socket, pid_file: Path) -> None:
    children: dict[int, Child] = {}
    server, given_up = None, time.monotonic() + PATIENCE_SECONDS
    while True:
        watched = [listener.fileno(), wakes.fileno(), *(child.launcher.fileno() for child in children.values())]
        ready, _, _ = select.select([*watched, *([] if server is None else [server])], [], [], 1.0)
        if server is None:
            server = _server(pid_file)
            if server is None and time.monotonic() > given_up:
                break
        elif server in ready:
            break
        if wakes.fileno() in ready:
            wakes.recv(4096)
        _reap(children)
        for child in list(children.values()):
            if child.launcher.fileno() in ready and _has_ended(child.launcher):  # TorchServe has killed it
                os.kill(child.pid, signal.SIGKILL)
        if listener.fileno() in ready:
            connection, _ = listener.accept()
            started = _started(connection, [listener, wakes, *(child.launcher for child in children.values())])
            if started is not None:
                children[started.pid] = started
    for child in children.values():
        os.kill(child.pid, signal.SIGKILL)


def _has_ended(launcher: socket.socket) -> bool:
    """Tell whether a launcher is gone, with all that it was told read, or with some of it not (a reset)."""
    try:
        return not launcher.recv(1)
    except ConnectionError:
        return True


def _server(pid_file: Path) -> int | None:
    """A descriptor that can be read once the server has ended; None while its number is not known."""
    try:
        return os.pidfd_open(int(pid_file.read_text()))
    except (OSError, ValueError):
        return None


def _reap(children: dict[int, Child]) -> None:
    """Tell the launchers of workers that have ended how they did."""
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        child = children.pop(pid, None)
        if child is not None:
            with child.launcher, suppress(OSError):  # it ended first
                child.launcher.sendall(LENGTH.pack(status))


def _started(connection: socket.socket, own: list[socket.socket]) -> Child | None:
    """A copy of this process that runs what the connection asks for; None where it asks for nothing."""
    connection.settimeout(5)
    try:
        header, outputs, _, _ = socket.recv_fds(connection, LENGTH.size, 2)
        (length,) = LENGTH.unpack(header)
        request = json.loads(connection.recv(length, socket.MSG_WAITALL))
        pid = os.fork()
    except (OSError, ValueError, struct.error):
        connection.close()
        return None
    if pid == 0:
        _run(request, outputs, connection, own)
    for output in outputs:
        os.close(output)
    connection.settimeout(None)
    with suppress(OSError):  # its end is read in the next round
        connection.sendall(LENGTH.pack(pid))
    return Child(pid, connection)


def _run(request: dict[str, object], outputs: list[int], launcher: socket.socket, own: list[socket.socket]) -> NoReturn:
    """Become the worker: its streams, environment and paths, as if the interpreter had been started for it."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor, output in enumerate(outputs, start=1):
            os.dup2(output, descriptor)
            os.close(output)
        for each in own:
            each.close()
        _enter(request)
        _share_first_connection(launcher)
        random.seed()
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()
        if "setproctitle" in sys.modules:  # or it would go by the template's command line
            sys.modules["setproctitle"].setproctitle(" ".join((sys.executable, *sys.argv)))
        status = _exit_status(str(sys.argv[0]))
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it
                stream.flush()
        os._exit(status)


def _enter(request: dict[str, object]) -> None:
    environment, arguments = dict(request["environment"]), list(request["arguments"])  # type: ignore[call-overload]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["folder"]))
    sys.argv = arguments
    script = str(Path(arguments[0]).resolve().parent)
    given = environment.get("PYTHONPATH", "").split(os.pathsep) if environment.get("PYTHONPATH") else []
    sys.path[:0] = [script, *given]
    importlib.invalidate_caches()


def _share_first_connection(launcher: socket.socket) -> None:
    """Give the launcher the first connection that the worker accepts, TorchServe's, to hold when the worker ends."""
    accept = socket.socket.accept

    def accept_and_share(listener: socket.socket) -> tuple[socket.socket, Any]:
        socket.socket.accept = accept  # type: ignore[method-assign]
        connection, address = accept(listener)
        with suppress(OSError):  # the launcher has ended, and with it this worker will
            socket.send_fds(launcher, [LENGTH.pack(ACCEPTED)], [connection.fileno()])
        return connection, address

    socket.socket.accept = accept_and_share  # type: ignore[method-assign, assignment]


def _exit_status(script: str) -> int:
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
    os._exit(0)  # libraries complain of what they have left
