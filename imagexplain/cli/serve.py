"""Start, stop or show the TorchServe that serves the model store.

`start` returns when every model of the store has a READY worker, or fails with the worker's own error; with
`--foreground` it stays until the server ends, or until SIGTERM or Ctrl-C stop it. `stop` lets the server answer what
it has accepted, for `--drain` seconds at most. The server's state (key file, logs, process, temporary files) is under
run/.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.client.loopback import LOOPBACK
from imagexplain.ops.server import DRAIN_SECONDS, ServerError, exposure, find, start, stay, stop
from imagexplain.ops.signals import ended_by_signals
from imagexplain.progress import say


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("start", "stop", "status"))
    parser.add_argument("--host", default=LOOPBACK, help="where inference listens (default: the loopback alone)")
    parser.add_argument("--port", type=int, help="first of five ports (default: those of config.properties)")
    parser.add_argument("--store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--run", type=Path, default=ROOT / "run", help="directory of the server's state")
    parser.add_argument("--foreground", action="store_true", help="stay until the server ends; a signal stops it")
    parser.add_argument(
        "--drain",
        type=float,
        default=DRAIN_SECONDS,
        metavar="SECONDS",
        help=f"most to wait for requests in flight before the server is stopped (default: {DRAIN_SECONDS:.0f})",
    )
    options = parser.parse_args(arguments)
    run = options.run.resolve()
    try:
        with ended_by_signals():
            if options.action == "start":
                return _start(options, run)
            if options.action == "status":
                return _show(run)
            if not stop(run, drain_s=options.drain):
                say("not running")
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _start(options: argparse.Namespace, run: Path) -> int:
    server = start(store=options.store, run=run, host=options.host, port=options.port, drain_s=options.drain)
    say(f"keys: {server.run}/key_file.json, logs: {server.logs}, metrics: {server.metrics}")
    warning = exposure(server.host, server.ports["inference"])
    if warning:
        print(warning, file=sys.stderr, flush=True)
    return stay(server, options.drain) if options.foreground else 0


def _show(run: Path) -> int:
    server = find(run)
    if server is None:
        say("not running")
        return 1
    say(f"running as process {server.pid}\ninference {server.inference}\nmanagement {server.management}")
    say(f"metrics {server.metrics}\nkeys {server.run}/key_file.json\nlogs {server.logs}")
    for model in server.models:
        say(f"{model}: {', '.join(server.workers(model)) or 'not loaded'}")
    return 0
