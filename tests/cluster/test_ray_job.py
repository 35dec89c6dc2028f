"""A job on Ray, on two nodes of this machine: whoever is killed, each image has one row in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from ray.cluster_utils import Cluster

from benchmarks.torture_cluster.nodes import NODE, own_signals
from imagexplain.cli import main
from imagexplain.cluster import table
from imagexplain.cluster.job import INPUTS, MAPS, TABLE, Job
from imagexplain.cluster.ray_job import ExplainingActor, SegmentingActor
from imagexplain.ops.server import ROOT
from tests.disks import enlarge, mounted
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_tensormask, write_timm
from tests.waiting import until

IMAGES, CHUNK = 40, 2
ROOM = 80 << 10
"""Bytes of a disk on which the list, the settings and a few parts of the table have room."""

COMMANDS = """
import json, sys
from imagexplain.cli import main
for given in json.loads(sys.argv[1]):
    print("status", main(given), file=sys.stderr)
"""
"""Program that runs commands one after the other, whose start takes longer than theirs."""


@dataclass(frozen=True)
class Jobs:
    """A cluster, a store, and photos, for jobs that each have a folder of their own."""

    cluster: Cluster
    store: Path
    photos: Path

    def given(self, out: Path, *options: str, photos: Path | None = None) -> list[str]:
        """The arguments of a job, but for those of Ray."""
        given = ["batch", "--input", str(photos or self.photos), "--output", str(out), "--store", str(self.store)]
        return [*given, *([] if "--model" in options else ["--model", "resnet"]), *options]

    @property
    def on_ray(self) -> tuple[str, ...]:
        """The arguments of Ray: one actor a node."""
        return "--address", self.cluster.address, "--actors", "2", "--cpus", "0.5"

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """The command in a process of its own."""
        given = self.given(out, *self.on_ray, "--chunk", str(CHUNK), "--option", "steps=40")
        command = [sys.executable, "-m", "imagexplain", *given]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *given: list[str]) -> subprocess.CompletedProcess[str]:
        """Commands one after the other, in a process of their own: what Ray is told of once stays in one."""
        command = [sys.executable, "-c", COMMANDS, json.dumps(given)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    store, photos = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("photos")
    whole = archived(store, write_timm(tmp_path_factory.mktemp("resnet"), "resnet"), "resnet").read_bytes()
    archived(store, write_tensormask(tmp_path_factory.mktemp("tensormask")), "tensormask")
    (store / "short.mar").write_bytes(whole[: len(whole) // 2])
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
        until(lambda: not actors(), 60)  # which may finish a part
        done = written(out)
        assert before + 12 <= done < IMAGES
        assert f"of {IMAGES - done} images, 0 of them errors" in ended(jobs.start(out))
        each_once(out)


def test_a_wrong_job_ends_with_one_line_of_the_services(jobs: Jobs, tmp_path: Path) -> None:
    """An error of each kind of actor, and one of what no node has."""
    told = jobs.run(
        jobs.given(tmp_path / "method", *jobs.on_ray, "--method", "attention_rollout"),
        jobs.given(tmp_path / "bound", *jobs.on_ray, "--segments", "tensormask", "--threshold", "-1"),
        jobs.given(tmp_path / "gpus", *jobs.on_ray, "--gpus", "1"),
    ).stderr
    assert "Traceback" not in told
    said = [line for line in told.splitlines() if line.startswith(("error: ", "status "))]
    assert said[1::2] == ["status 1"] * 3
    assert said[0].startswith("error: method: attention_rollout is not supported by this model: wanted a transformer")
    assert said[2:5:2] == [
        "error: threshold: wanted a number in 0..1, got -1.0",
        "error: --gpus: wanted at most the 0 of the largest node, got 1",
    ]


@pytest.mark.parametrize(
    ("options", "model", "wanted"),
    [
        ("stepz=3", "resnet", "ValueError: stepz: unknown option 'stepz' (did you mean 'steps'?)"),
        ("method=attention_rollout", "resnet", "ValueError: method: attention_rollout is not supported by this model"),
        ("", "short", "ValueError: {archive} is not a model archive: File is not a zip file"),
        ("", "gone", "ValueError: {archive} is not a model archive: [Errno 2] No such file or directory"),
        ("", "tensormask", "OSError: [Errno 2] No such file or directory: '{lists}"),
    ],
)
def test_an_actor_tells_its_error(jobs: Jobs, tmp_path: Path, options: str, model: str, wanted: str) -> None:
    """What the driver raises; without Ray."""
    archive = jobs.store / f"{model}.mar"
    row = {"file": "0000.jsonl", "offset": 0, "images": 1}
    told = ExplainingActor(Job(archive, tmp_path, options))(row)
    wanted = wanted.format(archive=archive, lists=tmp_path / INPUTS)
    assert told["images"] == 0 and told["error"].startswith(wanted) and "\n" not in told["error"]
    if not options:
        found = SegmentingActor(Job(archive, tmp_path, segmenter=archive))(row)
        assert ExplainingActor(Job(archive, tmp_path))(found) == told


def test_segments_by_actors_are_those_of_one_process(jobs: Jobs, tmp_path: Path) -> None:
    """The instances of a segmenter, and one photo that is none: rows and maps to the last digit."""
    photos, told = tmp_path / "photos", ["--segments", "tensormask", "--threshold", "0.3", "--maps", "--chunk", "2"]
    photos.mkdir()
    for seed in range(4):
        (photos / f"{seed}.png").write_bytes(coarse_png(seed))
    (photos / "bad.jpg").write_bytes(b"no image")
    here, there = tmp_path / "here", tmp_path / "there"
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as an actor has
    try:
        assert main(jobs.given(here, *told, photos=photos)) == 0
    finally:
        torch.set_num_threads(before)
    assert "status 0" in jobs.run(jobs.given(there, *told, *jobs.on_ray, photos=photos)).stderr
    rows, own = (sorted(table.rows(out / TABLE), key=lambda row: str(row["id"])) for out in (there, here))
    assert rows == own and [row["error"] is None for row in rows] == [True] * 4 + [False]
    assert all(any(group["kind"] == "segment" for group in row["groups"]) for row in rows[:4])
    maps, kept = ({path.name: path.read_bytes() for path in (out / MAPS).iterdir()} for out in (there, here))
    assert maps == kept and len(maps) == 4
