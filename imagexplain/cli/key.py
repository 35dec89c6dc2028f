"""Print a key of the server on this machine, for the header ``Authorization: Bearer KEY``.

curl -H "$(imagexplain key --header)" -T photo.jpg http://127.0.0.1:8080/predictions/bit
imagexplain key management
imagexplain key --expiry

Keys change with each start of the server.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.ops.server import Server, ServerError, find

KINDS = ("inference", "management", "API")
"""APIs that have a key; the last one's changes the others."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("kind", nargs="?", choices=KINDS, default="inference", help="API (default: inference)")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--header", action="store_true", help="print the whole header, as curl takes it")
    form.add_argument("--expiry", action="store_true", help="print until when the key is valid, and no key")
    made.add_argument("--run", type=Path, default=ROOT / "run", help="state of the server (default: run)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        server = find(given.run.resolve())
        if server is None:
            raise ServerError(f"no server runs with {given.run}: make serve")
        if given.expiry:
            print(_expiry(server, given.kind))
            return 0
        header = server.headers(given.kind)["Authorization"]
        print(f"Authorization: {header}" if given.header else header.removeprefix("Bearer "))
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _expiry(server: Server, kind: str) -> str:
    """The local time at which a key ends; the key of the API of keys has none."""
    file = Path(server.run, "key_file.json")
    try:
        ends = json.loads(file.read_text())[kind].get("expiration time")
        return "never" if ends is None else datetime.fromisoformat(ends).astimezone().isoformat(" ", "minutes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"no {kind} key in {file}: {error!r}") from None
