"""The server that runs on this machine, by the state that it leaves in its run directory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.client.errors import NoServerError
from imagexplain.client.loopback import LOOPBACK, reachable


@dataclass(frozen=True)
class LocalServer:
    """A server on this machine: its address, its models, and the directory of its state."""

    url: str
    models: tuple[str, ...]
    run: Path

    def key(self) -> str:
        """The inference key of today, which the server renews. Raises NoServerError."""
        file = self.run / "key_file.json"
        try:
            key: str = json.loads(file.read_text(encoding="utf-8"))["inference"]["key"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoServerError(f"no inference key in {file}: {error!r}") from None
        return key


def find_local(run: str | os.PathLike[str] | None = None) -> LocalServer:
    """The server of a run directory; that of the checkout by default.

    Raises:
        NoServerError: none runs there.
    """
    folder = Path(run) if run is not None else ROOT / "run"
    try:
        state = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        port, host = int(state["ports"]["inference"]), str(state.get("host", LOOPBACK))
        pid, models = int(state["pid"]), tuple(map(str, state["models"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise NoServerError(f"no server runs with {folder}: make serve, or name one by its address") from None
    if not _lives(pid):
        raise NoServerError(f"the server of {folder} has ended: make serve, or name one by its address")
    return LocalServer(f"http://{reachable(host)}:{port}", models, folder)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
