"""Memory, start and recovery of the demonstration's workers: as copies of one process, and each from nothing.

    python -m benchmarks.bench_workers [--rounds 2] [--out benchmarks/results_workers.json]

Private memory is what a process has alone, by the kernel's count (Private_Clean and Private_Dirty of smaps_rollup),
when all models are READY and none has been asked. What the copies share is counted once: the largest share that one
of them has in the template's pages. A worker is killed for the recovery, which ends when another one is READY in its
place.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request

from evaluation.machine import machine
from imagexplain.archive.build import build_all
from imagexplain.client.loopback import urlopen
from imagexplain.ops.fork_workers import SWITCH
from imagexplain.ops.server import ROOT, Server, free_port, start, stop

KILLED = "bit"
MIB = 1 << 20


def memory(pid: int) -> dict[str, int]:
    """Private and shared memory of a process, MiB."""
    kilobytes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        kilobytes[name.rstrip(":")] = int(value)
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    anonymous = max(0, kilobytes["Anonymous"] - kilobytes["Private_Dirty"])
    return {"private": private * 1024 // MIB, "shared_anonymous": anonymous * 1024 // MIB}


def worker(server: Server, model: str) -> dict[str, Any]:
    """TorchServe's description of a model's only worker."""
    request = Request(f"{server.management}/models/{model}", headers=server.headers("management"))
    with urlopen(request, timeout=10) as answer:
        (found,) = json.load(answer)[0]["workers"]
        about: dict[str, Any] = found
        return about


def recovery(server: Server) -> float:
    """Seconds from the end of a worker until another is READY in its place."""
    killed = worker(server, KILLED)["pid"]
    os.kill(killed, signal.SIGKILL)
    begun = time.monotonic()
    while (now := worker(server, KILLED))["status"] != "READY" or now["pid"] == killed:
        time.sleep(0.05)
    return time.monotonic() - begun


def measure(store: Path, run: Path, *, forked: bool) -> dict[str, Any]:
    """One start of all archives."""
    os.environ[SWITCH] = "1" if forked else "0"
    begun = time.monotonic()
    server = start(store=store, run=run, port=free_port())
    try:
        ready = time.monotonic() - begun
        models = {model: memory(worker(server, model)["pid"]) for model in server.models}
        return {
            "ready_seconds": round(ready, 1),
            "recovery_seconds": round(recovery(server), 1),
            "private": {model: own["private"] for model, own in models.items()},
            "private_total": sum(own["private"] for own in models.values()),
            "shared_once": max(own["shared_anonymous"] for own in models.values()),
            "jvm": memory(server.pid)["private"],
        }
    finally:
        stop(run, quiet=True, drain_s=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        build_all(sorted((ROOT / "archive_specs").glob("*.yaml")), store, environ={})
        for _ in range(options.rounds):
            rounds.append(
                {
                    name: measure(store, Path(folder, "run"), forked=forked)
                    for name, forked in (("copies", True), ("from_nothing", False))
                }
            )
            print(json.dumps(rounds[-1], indent=1), flush=True)
    ratios = {
        name: round(statistics.median(one["from_nothing"][name] / one["copies"][name] for one in rounds), 2)
        for name in ("ready_seconds", "recovery_seconds", "private_total")
    }
    print(json.dumps(ratios))
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rounds": rounds, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
