"""Start, stop or check the front door: nginx with TLS and keys of its own before the server on this machine.

`start` wants a running server (`make serve`), or settings that name nodes of Ray Serve. `reload` takes over changed
settings without a restart, `key` does so by itself. `stop` answers what has been accepted, for `--drain` seconds at
most. `check` has nginx read the configuration, and starts nothing. State, logs and keys are under run/edge/.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_config import behind, unstarted
from imagexplain.ops.edge_settings import SETTINGS_FILE, read_settings
from imagexplain.ops.server import DRAIN_SECONDS, ServerError, find
from imagexplain.ops.signals import ended_by_signals
from imagexplain.progress import say


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    options = parser(prog).parse_args(arguments)
    run = options.run.resolve()
    try:
        with ended_by_signals():
            status: int = options.work(options, run)
            return status
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument("--run", type=Path, default=ROOT / "run", help="directory of the server's state (default: run)")
    settings = argparse.ArgumentParser(add_help=False, parents=[state])
    settings.add_argument(
        "--settings", type=Path, default=SETTINGS_FILE, help="settings file (default: deploy/nginx/edge.yaml)"
    )
    actions = made.add_subparsers(required=True, metavar="ACTION")
    for work, parent, summary in (
        (_start, settings, "start nginx before the running server, or before nodes of a cluster"),
        (_reload, settings, "take over changed settings without a restart"),
        (_check, settings, "have nginx read its configuration, and start nothing"),
        (_status, state, "say whether it runs, and what its clients may know"),
    ):
        action = actions.add_parser(work.__name__.strip("_"), parents=[parent], help=summary)
        action.set_defaults(work=work)
    action = actions.add_parser("stop", parents=[state], help="answer what has been accepted, and end")
    action.add_argument("--drain", type=float, default=DRAIN_SECONDS, metavar="SECONDS", help="most to wait for that")
    action.set_defaults(work=_stop)
    keys = actions.add_parser("key", help="keys of clients").add_subparsers(required=True, metavar="ACTION")
    for name, keys_work, summary in (
        ("add", _add, "make a key for a client, and print it, once"),
        ("withdraw", _withdraw, "withdraw a client's keys"),
    ):
        action = keys.add_parser(name, parents=[state], help=summary)
        action.add_argument("client", metavar="CLIENT", help="name of the client, for logs and limits")
        action.set_defaults(work=keys_work)
        if name == "withdraw":
            action.add_argument("--but-newest", action="store_true", help="all but the one that was added last")
    keys.add_parser("list", parents=[state], help="list the clients").set_defaults(work=_list)
    return made


def _start(options: argparse.Namespace, run: Path) -> int:
    edge.start(find(run) or run, read_settings(options.settings))
    if run.owner() == "root":
        print("warning: nginx's workers run as root, who owns the server's state", file=sys.stderr, flush=True)
    if not edge_keys.listed(run / edge.FOLDER):
        say("no client has a key yet: imagexplain edge key add CLIENT")
    return 0


def _reload(options: argparse.Namespace, run: Path) -> int:
    running = edge.reload(find(run) or run, read_settings(options.settings))
    say(f"the front door at {running.url} has taken the settings over")
    return 0


def _check(options: argparse.Namespace, run: Path) -> int:
    server = find(run)
    settings = read_settings(options.settings)
    edge.check(behind(server or run, settings) if server or settings.ray else unstarted(run), settings)
    if server and not settings.ray:
        edge.check_private(server)
    say(f"{options.settings}: nginx takes it")
    return 0


def _status(_: argparse.Namespace, run: Path) -> int:
    running = edge.find(run)
    if running is None:
        say("not running")
        return 1
    say(f"running as process {running.pid}\naddress {running.url}\ncertificate {running.certificate}")
    clients = dict.fromkeys(key.client for key in edge_keys.listed(run / edge.FOLDER))
    say(f"logs {' '.join(map(str, running.logs))}\nclients {', '.join(clients) or 'none'}")
    return 0


def _stop(options: argparse.Namespace, run: Path) -> int:
    if not edge.stop(run, drain_s=options.drain):
        say("the front door is not running")
    return 0


def _add(options: argparse.Namespace, run: Path) -> int:
    key = edge_keys.add(run / edge.FOLDER, options.client)
    edge.reload_keys(run)
    print(key)
    return 0


def _withdraw(options: argparse.Namespace, run: Path) -> int:
    count = edge_keys.withdraw(run / edge.FOLDER, options.client, but_newest=options.but_newest)
    edge.reload_keys(run)
    say(f"withdrawn: {count} of {options.client}")
    return 0


def _list(_: argparse.Namespace, run: Path) -> int:
    keys = edge_keys.listed(run / edge.FOLDER)
    for key in keys:
        say(f"{key.client}  added {key.added}  SHA-256 {key.sha256[:12]}…")
    if not keys:
        say("no client has a key")
    return 0
