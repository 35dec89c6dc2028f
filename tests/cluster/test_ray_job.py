"""A job on Ray, on two nodes of this machine: whoever is killed, each image has one row in the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from imagexplain.cluster import table
from imagexplain.cluster.job import TABLE
from tests.cluster.nodes import NODE
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_timm

IMAGES = 40


@dataclass(frozen=True)
class Jobs:
    """A cluster, a store, and photos, for jobs that each have a folder of their own."""

    cluster: Cluster
    store: Path
    photos: Path

    def start(self, out: Path, *options: str) -> subprocess.Popen[bytes]:
        """The command in a process of its own, one actor a node."""
        given = ["batch", "--input", str(self.photos), "--model", "resnet", "--output", str(out), "--chunk", "2"]
        given += ["--store", str(self.store), "--address", self.cluster.address, "--actors", "2", "--cpus", "0.5"]
        command = [sys.executable, "-m", "imagexplain", *given, "--option", "steps=40", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    store, photos = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("photos")
    archived(store, write_timm(tmp_path_factory.mktemp("resnet"), "resnet"), "resnet")
    for seed in range(IMAGES):
        (photos / f"{seed}.png").write_bytes(coarse_png(seed))
    return Jobs(cluster, store, photos)


def rows(out: Path) -> int:
    return sum(1 for _ in table.rows(out / TABLE, ["id"])) if (out / TABLE).is_dir() else 0


def until(true: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        assert time.monotonic() < ends, "took too long"
        time.sleep(0.05)


def ended(process: subprocess.Popen[bytes]) -> str:
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told.decode()
    return told.decode()


def actors() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::MapWorker" in " ".join(one.info["cmdline"] or [])]


def each_once(out: Path) -> None:
    found = Counter(row["id"] for row in table.rows(out / TABLE, ["id"]))
    assert len(found) == IMAGES and set(found.values()) == {1}


def test_a_killed_actor_a_killed_node_and_a_killed_driver(jobs: Jobs, tmp_path: Path) -> None:
    node = jobs.cluster.add_node(**NODE)
    out = tmp_path / "out"
    first = jobs.start(out)
    until(lambda: rows(out) >= 4, first)
    actors()[0].kill()
    until(lambda: rows(out) >= 10, first)
    jobs.cluster.remove_node(node, allow_graceful=False)
    until(lambda: rows(out) >= 16, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = rows(out)
    assert 16 <= done < IMAGES
    assert f"of {IMAGES - rows(out)} images, 0 of them errors" in ended(jobs.start(out))
    each_once(out)
