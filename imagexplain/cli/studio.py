"""Open the studio, the page on which people ask the models: print its address, whose end is a key.

Where the front door runs and has the studio, it is there, and the command ends. Else a small server on the loopback
has it until Ctrl-C. The key is made anew each time; the page keeps it for its tab and takes it out of the address.
"""

from __future__ import annotations

import argparse
import html
import json
import signal
import ssl
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from imagexplain.checkout import ROOT
from imagexplain.ops.server import Server, ServerError, find
from imagexplain.ops.signals import ended_by_signals
from imagexplain.ops.studio import PORT, Settings, StudioServer
from imagexplain.ops.studio_application import PREFIX
from imagexplain.progress import say

CLIENT = "studio-command"
"""Client whose keys at the front door this command makes."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--run", type=Path, default=ROOT / "run", help="state of the server (default: run)")
    made.add_argument("--port", type=int, default=PORT, help=f"port of the small server, 0 for any (default: {PORT})")
    made.add_argument("--open", action="store_true", help="open a browser there")
    made.add_argument("--no-edge", action="store_true", help="the small server, even where the front door runs")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    run = given.run.resolve()
    show: Callable[[str], None] = (lambda address: open_browser(address, run)) if given.open else lambda _: None
    try:
        with ended_by_signals():
            if find(run) is None:
                raise ServerError(f"no server runs with {given.run}: make serve, or both at once: make studio")
            address = None if given.no_edge else at_the_edge(run)
            if address:
                say(f"the studio is at {address}")
                show(address)
                return 0
            return _serve(given.port, run, show)
    except (ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def at_the_edge(run: Path) -> str | None:
    """The page's address at the front door, with a new key; None where none runs that has the studio."""
    try:
        from imagexplain.ops import edge, edge_keys
    except ModuleNotFoundError:  # of the extra "ops", without which no front door was started
        return None
    running = edge.find(run)
    if running is None:
        return None
    context = ssl.create_default_context(cafile=running.certificate)
    context.check_hostname = False  # a certificate of the operator's names the machine, not the loopback
    try:
        build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(f"{running.url}{PREFIX}", timeout=5).close()
    except OSError:
        return None
    folder = run / edge.FOLDER
    key = edge_keys.add(folder, CLIENT)
    edge_keys.withdraw(folder, CLIENT, but_newest=True)
    edge.reload_keys(run)
    return f"{running.url}{PREFIX}#key={key}"


def document_of(server: Server) -> bytes:
    """The OpenAPI document of a running server. Raises ValueError for an archive that cannot be read."""
    from imagexplain.api.openapi import document  # which take seconds, and the page can do without for as long
    from imagexplain.cli.openapi import interfaces

    made = document(interfaces(Path(server.store), server.models))
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()


def open_browser(address: str, run: Path) -> None:
    """Open a browser at an address, by way of a private file: a command line, and the key in it, others could read."""
    from imagexplain.ops.edge_keys import write_private

    page = run / "studio.html"
    write_private(page, f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(address)}">\n')
    if not webbrowser.open(page.as_uri()):
        say("no browser is found here: open the address yourself")


def _serve(port: int, run: Path, show: Callable[[str], None]) -> int:
    try:
        server = StudioServer(Settings(ROOT / "studio", run, document_of), port)
    except OSError as error:
        raise ServerError(f"port {port}: {error.strerror or error}: choose another with --port") from None
    say(f"the studio is at {server.address}\nCtrl-C ends it")
    show(server.address)
    threading.Thread(target=_made_ahead, args=(server.prepare,), daemon=True).start()
    with suppress(KeyboardInterrupt, SystemExit):
        server.run()
    return 0


def _made_ahead(prepare: Callable[[], None]) -> None:
    with suppress(Exception):  # who asks for the document is told
        prepare()
