"""Python as TorchServe starts it for a worker: asks the template for a copy of itself, and lives as long as that does.

Run as a program, ``python -I -S worker_launcher.py SOCKET SCRIPT [ARGUMENT …]``, and quick to start: it imports sockets
alone. Where no template answers, it becomes the interpreter that TorchServe meant, so that nothing depends on one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys

LENGTH = struct.Struct("!I")
"""Length of a message, before it."""
PATIENCE_SECONDS = 60.0
"""Time that a template has for its imports and a copy: one that is stopped would hold up its workers for ever."""
ACCEPTED = 2**32 - 1
"""Word of a worker that has accepted TorchServe's connection, which comes with it; no exit status is as large."""
SILENCE_SECONDS = 0.1
"""Time without a word from TorchServe after which it waits for nothing more to send."""


def main(template: str, arguments: list[str], patience_s: float = PATIENCE_SECONDS) -> int:
    """Start a worker of the template, wait for its end, and end as it did.

    Args:
        template: Path of the template's socket.
        arguments: Script and its arguments.
        patience_s: Seconds after which the template counts as one that does not answer.

    Returns:
        The exit status of the worker; where a signal ended it, this process ends by the same.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience_s)
        if not _asked(connection, template, arguments):
            os.execv(sys.executable, [sys.executable, *arguments])
        connection.settimeout(None)
        return _wait(connection)


def _asked(connection: socket.socket, template: str, arguments: list[str]) -> bool:
    """Ask for a worker; tell whether there is one."""
    # Not by pathlib, which takes as long to import as all else.
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109
    message = json.dumps(request).encode()
    try:
        connection.connect(template)
        socket.send_fds(connection, [LENGTH.pack(len(message))], [1, 2])
        connection.sendall(message)
        return len(connection.recv(LENGTH.size, socket.MSG_WAITALL)) == LENGTH.size
    except OSError:
        return False


def _wait(connection: socket.socket) -> int:
    """Wait for the worker that has been started. The template ends it should this process end first."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):  # TorchServe takes the end of its worker's output for the end of the worker
        os.dup2(silence, output)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ended, held, _, _ = socket.recv_fds(connection, LENGTH.size, 1)
    if held:
        ended = connection.recv(LENGTH.size, socket.MSG_WAITALL)
        _let_it_send(held[0])
    status = LENGTH.unpack(ended)[0] if len(ended) == LENGTH.size else signal.SIGKILL
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.WEXITSTATUS(status)


def _let_it_send(connection: int) -> None:
    """Hold the connection of a worker that has ended until TorchServe has sent something, or nothing for a while.

    TorchServe collects a batch for some milliseconds, and forgets what it has collected if the connection ends
    meanwhile: nobody would ever be answered. What it has sent it answers with an error.
    """
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    waiting.poll(SILENCE_SECONDS * 1000)
    os.close(connection)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
