"""Start, stop, supervise or show the TorchServe that serves the model store, or replace one of its archives.

`start` returns when every model of the store has a READY worker, or fails with the worker's own error; with
`--foreground` it stays until the server ends, or until SIGTERM or Ctrl-C stop it. `stop` lets the server answer what
it has accepted, for `--drain` seconds at most.

`supervise` starts the server and stays: it starts it anew when it has ended, and the workers of a model that TorchServe
has given up, ends workers that hang, and tells on a port of the loopback, the inference port + 5, whether every model
is ready. SIGTERM or Ctrl-C stop both. `replace ARCHIVE` serves another version of a model in the place of the one that
is served, without a request that fails; the server must have been started with `--replaceable`.

The server's state (key file, logs, process, temporary files) is under run/.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.client.loopback import LOOPBACK
from imagexplain.ops.replace import replace
from imagexplain.ops.server import DRAIN_SECONDS, Server, ServerError, exposure, find, start, stay, stop
from imagexplain.ops.signals import ended_by_signals
from imagexplain.ops.supervisor_state import find_supervisor
from imagexplain.progress import say


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("action", choices=("start", "stop", "status", "supervise", "replace"))
    made.add_argument("archive", nargs="?", type=Path, help="replace: the archive with the new version")
    made.add_argument("--host", default=LOOPBACK, help="where inference listens (default: the loopback alone)")
    made.add_argument("--port", type=int, help="first of five ports (default: those of config.properties)")
    made.add_argument("--store", type=Path, default=ROOT / "model_store")
    made.add_argument(
        "--models", nargs="+", action="extend", default=[], metavar="MODEL", help="models to serve (default: all)"
    )
    made.add_argument(
        "--replaceable", action="store_true", help="let the management key's holder load archives while it runs"
    )
    made.add_argument("--run", type=Path, default=ROOT / "run", help="directory of the server's state")
    made.add_argument("--foreground", action="store_true", help="stay until the server ends; a signal stops it")
    made.add_argument(
        "--drain",
        type=float,
        default=DRAIN_SECONDS,
        metavar="SECONDS",
        help=f"most to wait for requests in flight before the server is stopped (default: {DRAIN_SECONDS:.0f})",
    )
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    made = parser(prog)
    options = made.parse_args(arguments)
    run = options.run.resolve()
    if (options.action == "replace") != (options.archive is not None):
        made.error("replace takes an archive, and nothing else does")
    try:
        if options.action == "supervise":
            return _supervise(options, run)
        with ended_by_signals():
            if options.action == "start":
                return _start(options, run)
            if options.action == "status":
                return _show(run)
            if options.action == "replace":
                replace(run, options.archive, drain_s=options.drain)
                return 0
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
    server = start(
        store=options.store,
        run=run,
        host=options.host,
        port=options.port,
        models=options.models,
        replaceable=options.replaceable,
        drain_s=options.drain,
    )
    _tell(server)
    return stay(server, options.drain) if options.foreground else 0


def _supervise(options: argparse.Namespace, run: Path) -> int:
    try:
        from imagexplain.ops.supervise import Settings, supervise
    except ModuleNotFoundError as error:  # of the extra, which nothing else here needs
        wanted = f"wanted {error.name}, which is not installed: pip install 'imagexplain[serve,ops]'"
        raise ServerError(wanted) from None

    settings = Settings(
        root=ROOT,
        store=options.store.resolve(),
        run=run,
        host=options.host,
        port=options.port,
        models=tuple(options.models),
        replaceable=options.replaceable,
        drain_s=options.drain,
    )

    def started(server: Server) -> None:
        _tell(server)
        supervisor = find_supervisor(run)
        if supervisor:
            say(f"supervised by process {supervisor.pid}; readiness: {supervisor.exporter}/readyz")

    with suppress(KeyboardInterrupt, SystemExit):  # whoever asked it to end has got what he wanted
        supervise(settings, started)
    return 0


def _tell(server: Server) -> None:
    say(f"keys: {server.run}/key_file.json, logs: {server.logs}, metrics: {server.metrics}")
    warning = exposure(server.host, server.ports["inference"])
    if warning:
        print(warning, file=sys.stderr, flush=True)


def _show(run: Path) -> int:
    server = find(run)
    if server is None:
        say("not running")
        return 1
    say(f"running as process {server.pid}\ninference {server.inference}\nmanagement {server.management}")
    supervisor = find_supervisor(run)
    if supervisor:
        say(f"supervised by process {supervisor.pid}, readiness {supervisor.exporter}/readyz")
    say(f"metrics {server.metrics}\nkeys {server.run}/key_file.json\nlogs {server.logs}")
    for model in server.models:
        say(f"{model}: {', '.join(server.workers(model)) or 'not loaded'}")
    return 0
