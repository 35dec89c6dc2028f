"""Print a key of the server on this machine, for the header ``Authorization: Bearer KEY``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.ops.server import ServerError, find

KINDS = ("inference", "management", "API")
"""APIs that have a key; the last one's changes the others."""


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS, default="inference", help="API (default: inference)")
    parser.add_argument("--run", type=Path, default=ROOT / "run", help="state of the server (default: run)")
    given = parser.parse_args(arguments)
    try:
        server = find(given.run.resolve())
        if server is None:
            raise ServerError(f"no server runs with {given.run}: make serve")
        print(server.headers(given.kind)["Authorization"].removeprefix("Bearer "))
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
