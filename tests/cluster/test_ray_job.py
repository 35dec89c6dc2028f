"""A job on Ray, on two nodes of this machine: whoever is killed, each image has one row in the end."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from benchmarks.torture_cluster.nodes import NODE, own_signals
from imagexplain.cluster import table
from imagexplain.cluster.job import TABLE
from tests.disks import enlarge, mounted
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_timm
from tests.waiting import until

IMAGES, CHUNK = 40, 2
ROOM = 80 << 10
"""Bytes of a disk on which the list, the settings and a few parts of the table have room."""


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


def ended(process: subprocess.Popen[bytes]) -> str:
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told.decode()
    return told.decode()


def actors() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::MapWorker" in " ".join(one.info["cmdline"] or [])]


def each_once(out: Path) -> None:
    found = Counter(row["id"] for row in table.rows(out / TABLE, ["id"]))
    assert len(found) == IMAGES and set(found.values()) == {1}


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_full_disk_a_killed_actor_a_killed_node_and_a_killed_driver(jobs: Jobs, tmp_path: Path, whole: bool) -> None:
    """The short form leaves out what test_job.py has in one process, the full disk, and the node."""
    with mounted(tmp_path / "disk", ROOM) if whole else nullcontext(tmp_path) as disk:
        out, before, node = disk / "out", 0, None
        if whole:
            told, _ = (crowded := jobs.start(out)).communicate(timeout=180)
            assert crowded.returncode == 1, told.decode()
            assert f"\nerror: {out}: No space left on device; what is finished is kept: make room" in told.decode()
            before = written(out)
            assert 0 < before < IMAGES // 2
            with own_signals():
                node = jobs.cluster.add_node(**NODE)
            enlarge(disk, 100 * ROOM)
        first = jobs.start(out)
        until(lambda: written(out) >= before + 4, 120, first)
        actors()[0].kill()
        if node is not None:
            jobs.cluster.remove_node(node, allow_graceful=False)
        until(lambda: written(out) >= before + 12, 120, first)
        first.kill()
        first.wait()
        done = written(out)
        assert before + 12 <= done < IMAGES
        assert f"of {IMAGES - done} images, 0 of them errors" in ended(jobs.start(out))
        each_once(out)
