"""The unit of systemd and the Containerfile, as far as they can be checked without either."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from imagexplain.checkout import ROOT
from imagexplain.cli import serve
from imagexplain.ops.exporter import EXPORTER_PORT
from imagexplain.ops.server import PORTS, ports_from

UNIT = ROOT / "deploy" / "systemd" / "imagexplain.service"
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
PLACE = "/opt/imagexplain"


def analyze(unit: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The answer of ``systemd-analyze``; where tests must not be left out, its absence is a failure."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing: apt install systemd")
        pytest.skip("no systemd-analyze here")
    command = ["systemd-analyze", *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with this checkout in the place of the installed one, whose files it may then find."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(f"{PLACE}/", f"{ROOT}/"))
    return copy


def test_systemd_finds_no_fault_with_the_unit(unit: Path) -> None:
    found = analyze(unit, "verify", "--man=no")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    unit.write_text(unit.read_text().replace("Type=notify", "Type=notifies"))
    assert "notifies" in analyze(unit, "verify", "--man=no").stderr, "it tells a fault"


def test_the_unit_is_exposed_as_little_as_the_page_says(unit: Path) -> None:
    """Of 10; a unit without settings has 9.6."""
    found = analyze(unit, "security", "--offline=true", "--no-pager")
    level = re.search(r"Overall exposure level for \S+: (\S+)", found.stdout)
    assert level is not None, found.stderr
    assert f"exposure of {level[1]}" in (ROOT / "docs" / "operations.md").read_text()


def commands() -> dict[str, list[str]]:
    """The arguments of the server's command in both files."""
    unit = re.search(r"^ExecStart=((?:[^\\\n]|\\\n)*)", UNIT.read_text(), re.MULTILINE)
    container = re.search(r"^CMD \[(.*)\]$", CONTAINERFILE.read_text(), re.MULTILINE)
    assert unit and container
    return {
        "unit": shlex.split(unit[1].replace("\\\n", " "))[2:],
        "container": shlex.split(container[1].replace(",", " ")),
    }


@pytest.mark.parametrize("where", ["unit", "container"])
def test_the_command_is_one_that_there_is(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, str, float]] = []

    def supervise(options: argparse.Namespace, run: Path) -> int:
        given.append((str(options.store), str(run), options.drain))
        return 0

    monkeypatch.setattr(serve, "_supervise", supervise)
    assert serve.main(commands()[where]) == 0
    state = {"unit": "/var/lib/imagexplain", "container": "/state"}[where]
    assert given == [(f"{PLACE}/model_store", state, 60.0)]


def test_the_front_doors_container_is_the_same_with_nginx() -> None:
    text = (CONTAINERFILE.parent / "Containerfile.edge").read_text()
    (packages,) = re.findall(r"--no-install-recommends (.*) \\$", text, re.MULTILINE)
    assert {*packages.split()} == {"nginx", "libnginx-mod-http-js", "openssl"}
    assert {*packages.split()} <= {*(ROOT / "scripts" / "setup_ops.sh").read_text().split("(")[1].split(")")[0].split()}
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["root", "10001:10001"]
    (script,) = re.findall(rf'"{PLACE}/(\S+\.sh)"', text)
    assert (ROOT / script).is_file()
    pods = [(ROOT / "deploy" / "kubernetes" / name).read_text() for name in ("torchserve.yaml", "front_door.yaml")]
    for path in json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0]):
        assert all(f"mountPath: /{path.split('/')[1]}" in pod for pod in pods), path


def test_the_container_runs_as_nobody_in_particular_and_asks_the_exporter() -> None:
    text = CONTAINERFILE.read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    port = ports_from(ROOT, None)[PORTS[0]] + EXPORTER_PORT
    assert f"http://127.0.0.1:{port}/readyz" in text
    paths = re.findall(rf"{PLACE}/(scripts/\S+\.py)", text + UNIT.read_text())
    assert len(paths) == 2 and all((ROOT / path).is_file() for path in paths)
