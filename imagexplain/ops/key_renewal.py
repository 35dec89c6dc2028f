"""Keys that are renewed before they expire: a supervised server may run for longer than they hold."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from urllib.request import Request

from imagexplain.client.loopback import urlopen
from imagexplain.ops.server import Server

BEFORE = timedelta(days=1)
KINDS = ("inference", "management")


def expiring(key_file: Path, now: datetime) -> list[str]:
    """The kinds of keys that expire within a day of `now`. Raises OSError or ValueError for what is no key file."""
    keys = json.loads(key_file.read_text())
    try:
        return [kind for kind in KINDS if datetime.fromisoformat(keys[kind]["expiration time"]) - now < BEFORE]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{key_file}: wanted keys with their expiration, got {error!r}") from None


def renew(server: Server, kind: str) -> None:
    """Have TorchServe make a new key, which it writes to the key file; the old one is refused from now on.

    Raises:
        OSError: the server does not answer, or refuses.
    """
    request = Request(f"{server.management}/token?type={kind}", headers=server.headers("API"))
    with urlopen(request, timeout=5):
        pass
