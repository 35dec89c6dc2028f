"""The end of a server's work: no more is taken on, and what has been accepted is answered, within a time.

TorchServe itself resets what is in flight when it is told to end, and it cannot be told to stop listening. But its
inference key can be changed while it runs: then it answers newcomers with 400 InvalidKeyException, as it does to
everyone with the old key after a restart, while what it has accepted goes on.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request

import psutil

from imagexplain.client.loopback import urlopen
from imagexplain.ops.key_renewal import renew

if TYPE_CHECKING:
    from imagexplain.ops.server import Server

LOOK_SECONDS = 0.1
IDLE_SECONDS = 0.3
"""Time without a tick of the processor after which several workers of a model count as idle."""

DRAINING_FILE = "draining"
"""File of the run directory that says so to a proxy, which would follow the change of the key."""

_ESTABLISHED = "01"


def drain(server: Server, seconds: float, waiting: Callable[[float], None] = lambda _: None) -> bool:
    """Wait until the server has answered all that it has accepted.

    Once a model's queue is empty, a request of ours is put into it: a single worker answers it after all before it.
    Several workers must be idle besides. At last the sockets must hold nothing that a client has yet to read.

    Args:
        server: Running server.
        seconds: Seconds to wait, at most.
        waiting: Function that is called now and then with the seconds waited so far.

    Returns:
        Whether nothing was left; False too if the server does not answer, so that nothing can be known.
    """
    begun = time.monotonic()
    try:
        Path(server.run, DRAINING_FILE).touch()
        _refuse_newcomers(server)
        while (left := begun + seconds - time.monotonic()) > 0:
            if _is_done(server, left):
                return True
            waiting(time.monotonic() - begun)
            time.sleep(LOOK_SECONDS)
    except (OSError, ValueError, LookupError, psutil.Error):
        pass
    return False


def settle(server: Server, model: str, seconds: float) -> bool:
    """Wait until one model has answered all that it has accepted, while the others go on and nobody is refused.

    It is for a version that no new request is meant for.

    Args:
        server: Running server.
        model: Name and version of the model, as in addresses.
        seconds: Seconds to wait, at most.

    Returns:
        Whether nothing was left.
    """
    ends = time.monotonic() + seconds
    try:
        while (left := ends - time.monotonic()) > 0:
            if _are_idle(server, (model,), left):
                return True
            time.sleep(LOOK_SECONDS)
    except (OSError, ValueError, LookupError, psutil.Error):
        pass
    return False


def _refuse_newcomers(server: Server) -> None:
    try:
        renew(server, "inference")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise  # with a full disk they are not refused, and what is in flight is waited for all the same


def _is_done(server: Server, left: float) -> bool:
    if not _are_idle(server, server.models, left):
        return False
    if _unread(server.ports["inference"]):
        return False
    time.sleep(LOOK_SECONDS)  # a socket may be empty just before TorchServe fills it again
    return not _unread(server.ports["inference"])


def _are_idle(server: Server, models: Collection[str], left: float) -> bool:
    """Tell whether the models have nothing in their queues and in work; waits for what is in front of a request."""
    about = {model: describe(server, model) for model in models}
    if any(each["jobQueueStatus"]["pendingRequests"] for each in about.values()):
        return False
    workers = {model: _ready(each) for model, each in about.items()}
    able = [model for model, found in workers.items() if found]
    if able:
        with ThreadPoolExecutor(len(able)) as threads:
            if not all(threads.map(lambda model: _comes_back(server, model, left), able)):
                return False
    pids = [pid for found in workers.values() for pid in found]
    return not any(len(found) > 1 for found in workers.values()) or _idle(pids)


def describe(server: Server, model: str) -> dict[str, Any]:
    """TorchServe's description of a model: its workers, its settings and its queue. Raises OSError or ValueError."""
    request = Request(f"{server.management}/models/{model}", headers=server.headers("management"))
    with urlopen(request, timeout=5) as answer:
        about: dict[str, Any] = json.load(answer)[0]
        return about


def _ready(about: dict[str, Any]) -> list[int]:
    """The process numbers of a model's workers; a request to a model without one would hang."""
    return [worker["pid"] for worker in about["workers"] if worker["status"] == "READY"]


def _comes_back(server: Server, model: str, left: float) -> bool:
    """Tell whether a request to the model, behind all earlier ones, is answered in time; empty, it costs nothing."""
    request = Request(f"{server.inference}/predictions/{model}", headers=server.headers())
    try:
        with urlopen(request, timeout=left):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def _idle(pids: list[int]) -> bool:
    before = [psutil.Process(pid).cpu_times() for pid in pids]
    time.sleep(IDLE_SECONDS)
    return before == [psutil.Process(pid).cpu_times() for pid in pids]


def _unread(port: int) -> int:
    """Bytes of answers that clients of the port have yet to take; 0 where Linux does not say so."""
    unread = 0
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, queues, *_ = line.split()
            if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                unread += int(queues.partition(":")[0], 16)
    return unread
