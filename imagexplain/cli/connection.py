"""The server that a command asks: one on this machine, found by its state, or any other by its address."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.client import Client
from imagexplain.client.local import find_local
from imagexplain.client.transport import Key

KEY_VARIABLE = "IMAGEXPLAIN_KEY"
"""Variable of the environment that may have the key, which a command line would show to all of the machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which server to ask."""
    parser.add_argument(
        "--run", type=Path, default=ROOT / "run", help="state of a server on this machine (default: run)"
    )
    parser.add_argument("--url", help="inference address of another server")
    parser.add_argument(
        "--key", default=os.environ.get(KEY_VARIABLE, ""), help=f"its inference key (default: ${KEY_VARIABLE})"
    )
    parser.add_argument("--certificate", type=Path, help="file of the certificate that it is trusted by")


def connect(options: argparse.Namespace) -> Client:
    """The client that `add_arguments`' arguments ask for. Raises ClientError."""
    url, key = address(options)
    return Client(url, key, certificate=options.certificate)


def address(options: argparse.Namespace) -> tuple[str, Key]:
    """The address and the key that `add_arguments`' arguments ask for. Raises NoServerError."""
    if options.url:
        return options.url, options.key
    found = find_local(options.run)
    return found.url, found.key
