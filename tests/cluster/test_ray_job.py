"""A job on Ray, on two nodes of this machine: whoever is killed, each image has one row in the end."""

from __future__ import annotations

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

from benchmarks.torture_cluster.nodes import NODE, own_signals
from imagexplain.cluster import table
from imagexplain.cluster.job import TABLE
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_timm

IMAGES, CHUNK = 40, 2


@dataclass(frozen=True)
class Jobs:
    """A cluster, a store, and photos, for jobs that each have a folder of their own."""

    cluster: Cluster
    store: Path
    photos: Path

    def start(self, out: Path, *options: str) -> subprocess.Popen[bytes]:
        """The command in a process of its own, one actor a node."""
        given = ["batch", "--input", str(self.photos), "--model", "resnet", "--output", str(out), "--chunk", str(CHUNK)]
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


def written(out: Path) -> int:
    """Number of images that have a row."""
    return CHUNK * len(table.parts(out / TABLE))


def until(true: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        assert time.monotonic() < ends, "took too long"
        time.sleep(0.2)


def ended(process: subprocess.Popen[bytes]) -> str:
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told.decode()
    return told.decode()


def actors() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::MapWorker" in " ".join(one.info["cmdline"] or [])]


def each_once(out: Path) -> None:
    found = Counter(row["id"] for row in table.rows(out / TABLE, ["id"]))
    assert len(found) == IMAGES and set(found.values()) == {1}


@pytest.mark.parametrize("with_node", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_killed_actor_a_killed_node_and_a_killed_driver(jobs: Jobs, tmp_path: Path, with_node: bool) -> None:
    with own_signals():
        node = jobs.cluster.add_node(**NODE) if with_node else None
    out = tmp_path / "out"
    first = jobs.start(out)
    until(lambda: written(out) >= 4, first)
    actors()[0].kill()
    if node is not None:
        jobs.cluster.remove_node(node, allow_graceful=False)
    until(lambda: written(out) >= 12, first)
    first.kill()
    first.wait()
    done = written(out)
    assert 12 <= done < IMAGES
    assert f"of {IMAGES - done} images, 0 of them errors" in ended(jobs.start(out))
    each_once(out)
