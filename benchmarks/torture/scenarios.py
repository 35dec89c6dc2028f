"""The things that go wrong, one at a time, each under load."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from benchmarks.torture import hostile
from benchmarks.torture.answers import Verdict
from benchmarks.torture.documented import explanations_document, fuzz
from benchmarks.torture.found import Found
from benchmarks.torture.service import MODELS, Service, is_ready
from benchmarks.torture.waiting import until
from imagexplain.archive.build import build_all
from imagexplain.checkout import ROOT
from imagexplain.ops.replace import replace
from imagexplain.ops.server import ServerError

VICTIM = "bit"


@dataclass(frozen=True)
class Size:
    """Extent of each scenario.

    Attributes:
        clients: Number of clients that ask at once.
        calm_s: Seconds of load before and after what goes wrong.
        flood: Number of requests of a flood, all at once.
        uploads: Number of uploads that are begun and not finished.
        hostile: Number of hostile requests.
        documented: Largest number of requests of the OpenAPI document for each operation and phase.
        steady: Number of requests over which memory must stay flat; the full one is one a second for two hours.
    """

    clients: int
    calm_s: float
    flood: int
    uploads: int
    hostile: int
    documented: int
    steady: int


SHORT = Size(clients=4, calm_s=0.5, flood=60, uploads=16, hostile=60, documented=2, steady=50)
FULL = Size(clients=6, calm_s=5.0, flood=200, uploads=64, hostile=10_000, documented=1_000, steady=7_200)


Scenario = Callable[[Service, Size], Found]


def calm(service: Service, size: Size) -> Found:
    """Nothing goes wrong."""
    time.sleep(2 * size.calm_s)
    return Found()


def killed_worker(service: Service, size: Size) -> Found:
    """kill -9 of a model's worker."""
    pid = service.worker(VICTIM)
    found = Found(time.monotonic())
    os.kill(pid, signal.SIGKILL)
    _recovered(service, lambda: service.worker(VICTIM) != pid)
    return found


def stopped_worker(service: Service, size: Size) -> Found:
    """SIGSTOP of a model's worker."""
    pid = service.worker(VICTIM)
    found = Found(time.monotonic())
    os.kill(pid, signal.SIGSTOP)
    _recovered(service, lambda: service.worker(VICTIM) != pid)
    return found


def killed_frontend(service: Service, size: Size) -> Found:
    """kill -9 of TorchServe's Java process."""
    pid = service.server.pid
    found = Found(time.monotonic())
    os.kill(pid, signal.SIGKILL)
    _recovered(service, lambda: service.server.pid != pid)
    return found


def flood(service: Service, size: Size) -> Found:
    """More requests at once than the queue holds."""
    question, *_ = service.load.known
    service.load.flood(question, size.flood)
    return Found(told=f"{size.flood} at once")


def unfinished_uploads(service: Service, size: Size) -> Found:
    """Clients that begin to upload, and send no more."""
    head = f"POST /predictions/{VICTIM} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n".encode()
    head += f"Authorization: Bearer {service.load.key}\r\n\r\n".encode() + bytes(100)
    connections = [_connected(service) for _ in range(size.uploads)]
    for connection in connections:
        connection.sendall(head)
    time.sleep(2 * size.calm_s)
    for connection in connections:
        connection.close()
    return Found(told=f"{size.uploads} uploads")


def leaving_clients(service: Service, size: Size) -> Found:
    """Clients that ask for long explanations and leave at once."""
    question = next(each for each in service.load.known if each.path.startswith("/explanations"))
    head = f"POST {question.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(question.body)}\r\n"
    head += f"X-Explain-Options: steps=200\r\nAuthorization: Bearer {service.load.key}\r\n\r\n"
    begun = time.monotonic()
    for _ in range(size.flood // 10):
        connection = _connected(service)
        connection.sendall(head.encode() + question.body)
        connection.close()
    with service.load.session() as session:
        while service.load.ask(session, question).verdict != Verdict.RIGHT:
            time.sleep(0.2)
    return Found(begun, told=f"{size.flood // 10} left; the next right answer took {time.monotonic() - begun:.1f} s")


def oversized(service: Service, size: Size) -> Found:
    """Requests and answers that are too large."""
    found = Found()
    (photo, *_), url = (question.body for question in service.load.known), service.load.url
    outputs = "steps=1000&outputs=intermediates,integrated_directional_grads"
    for path, body, headers in (
        (f"/predictions/{VICTIM}", bytes(33_000_001), {}),
        (f"/predictions/{VICTIM}", photo, {"X-Explain-Options": "a" * 20_000}),
        (f"/predictions/{VICTIM}?{'a' * 20_000}", photo, {}),
        (f"/explanations/{VICTIM}", photo, {"X-Explain-Options": outputs, "Accept": "application/gzip"}),
        ("/predictions/" + "x" * 3000, photo, {}),
    ):
        with service.load.session() as session:  # each on a connection of its own, which a refusal may end
            found.post(session, url + path, body, headers)
    return found


def hostile_bodies(service: Service, size: Size) -> Found:
    """Bodies and options that no honest client sends."""
    found, rng = Found(), random.Random(17)
    photo = next(iter(service.load.known)).body
    with service.load.session() as session:
        for _ in range(size.hostile):
            body, media = hostile.body(rng, photo)
            path = f"/{rng.choice(('predictions', 'explanations'))}/{rng.choice(MODELS)}"
            headers = {"Content-Type": media, "X-Explain-Options": hostile.options(rng)}
            found.post(session, service.load.url + path, body, headers)
    found.told = f"{size.hostile} bodies"
    return found


def documented_requests(service: Service, size: Size) -> Found:
    """Requests that schemathesis makes of the OpenAPI document, right ones and wrong ones."""
    described = explanations_document(service.folder / "store", MODELS, query=True)
    load = service.load
    made = fuzz(described, load.url, load.key, service.folder, examples=size.documented, certificate=load.certificate)
    unclear = [made.said[-2000:]] if made.fine < made.sent else []
    return Found(unclear=unclear, told=f"{made.fine} of {made.sent} answered as the document says")


def hot_replacement(service: Service, size: Size) -> Found:
    """Another version of an archive in the place of the one that is served."""
    archive = _another_version(service, "2.0")
    replace(service.run, archive, drain_s=20)
    time.sleep(size.calm_s)
    return Found()


def damaged_archives(service: Service, size: Size) -> Found:
    """A truncated archive, and one of which a byte was changed, offered in the place of a good one."""
    found, whole = Found(), _another_version(service, "3.0")
    content = whole.read_bytes()
    for name, data in (("truncated", content[: len(content) // 2]), ("changed", _changed(content))):
        archive = service.folder / f"{name}.mar"
        archive.write_bytes(data)
        try:
            replace(service.run, archive)
        except ServerError as error:
            found.clear += str(archive) in str(error)
        else:
            found.unclear.append(f"{name} was served")
    return found


def full_disk(service: Service, size: Size) -> Found:
    """No room in the state directory, where its file system is small enough to be filled."""
    free = shutil.disk_usage(service.run).free
    if free > 2**30:
        return Found(told="not filled: more than 1 GiB is free")
    filler = service.run / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    time.sleep(2 * size.calm_s)
    filler.unlink()
    return Found(told=f"{free >> 20} MiB filled")


def flat_memory(service: Service, size: Size) -> Found:
    """Many requests, after which the workers hold no more memory than before."""
    load = service.load
    with load.session() as session:
        for _ in range(5):
            for question in load.known:
                load.ask(session, question)
        before = service.private_mib()
        for index in range(size.steady):
            load.ask(session, list(load.known)[index % len(load.known)])
    after = service.private_mib()
    grown = {model: after[model] - before[model] for model in before}
    return Found(told=f"{size.steady} requests; grown by {', '.join(f'{own} MiB' for own in grown.values())}")


SCENARIOS: dict[str, Scenario] = {
    "calm": calm,
    "kill -9 of a worker": killed_worker,
    "SIGSTOP of a worker": stopped_worker,
    "kill -9 of the frontend": killed_frontend,
    "flood": flood,
    "unfinished uploads": unfinished_uploads,
    "clients that leave": leaving_clients,
    "oversized": oversized,
    "hostile bodies": hostile_bodies,
    "OpenAPI document": documented_requests,
    "hot replacement": hot_replacement,
    "damaged archives": damaged_archives,
    "full disk": full_disk,
    "flat memory": flat_memory,
}


LONG = ("hostile bodies", "OpenAPI document", "flat memory")
"""Scenarios of so many requests of their own that the load beside them is light."""


def _recovered(service: Service, changed: Callable[[], bool], seconds: float = 150) -> None:
    """Wait until the service is ready again, after something is seen to have changed, and right answers come."""

    def seen() -> bool:
        try:
            return changed() and is_ready(service.run)
        except (OSError, ValueError, RuntimeError, ServerError):
            return False

    until(seen, seconds)
    service.load.until_right(seconds)


def _connected(service: Service) -> ssl.SSLSocket:
    address = urlsplit(service.load.url)
    context = ssl.create_default_context(cafile=service.load.certificate)
    host, port = str(address.hostname), int(address.port or 443)
    return context.wrap_socket(socket.create_connection((host, port), timeout=30), server_hostname=host)


def _another_version(service: Service, version: str) -> Path:
    """An archive of the victim under another version."""
    specs, spare = ROOT / "archive_specs", service.folder / "spare"
    spec: dict[str, Any] = yaml.safe_load((specs / f"{VICTIM}.yaml").read_text())
    files = {name: str(specs / spec[name]) for name in ("weights", "labels")}
    spare.mkdir(exist_ok=True)
    (spare / f"{VICTIM}.yaml").write_text(yaml.safe_dump({**spec, **files, "version": version}))
    (archive,) = build_all([spare / f"{VICTIM}.yaml"], spare, environ={})
    return archive


def _changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
