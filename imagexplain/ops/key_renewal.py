"""New keys: before the old ones expire, for a supervised server may run for longer, and when newcomers are refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request

from imagexplain.client.loopback import urlopen

if TYPE_CHECKING:
    from imagexplain.ops.server import Server

BEFORE = timedelta(days=1)
KINDS = ("inference", "management")
ROOM_BYTES = 1 << 16


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
        OSError: the server does not answer, or refuses; or the disk is full (``errno.ENOSPC``), where TorchServe would
            leave an empty key file, and nobody could command it any more.
    """
    if shutil.disk_usage(server.run).free < ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), server.run)
    request = Request(f"{server.management}/token?type={kind}", headers=server.headers("API"))
    with urlopen(request, timeout=5):
        pass
