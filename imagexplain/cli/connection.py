"""The server that a command asks: one on this machine, found by its state, or any other by its address."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.client.client import Client, ClientError
from imagexplain.ops.server import find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which server to ask."""
    parser.add_argument(
        "--run", type=Path, default=ROOT / "run", help="state of a server on this machine (default: run)"
    )
    parser.add_argument("--url", help="inference address of another server")
    parser.add_argument("--key", default="", help="its inference key")


def connect(options: argparse.Namespace) -> Client:
    """The client that `add_arguments`' arguments ask for. Raises ClientError or ServerError."""
    if options.url:
        return Client(options.url.rstrip("/"), {"Authorization": f"Bearer {options.key}"} if options.key else {})
    server = find(options.run.resolve())
    if server is None:
        raise ClientError(f"no server runs with {options.run}: make serve, or name one with --url")
    return Client(server.inference, server.headers())
