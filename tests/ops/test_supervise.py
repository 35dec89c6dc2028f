"""A supervisor of a real TorchServe: what it notices, what it does, and what is left when it ends.

The tests share one and come in order: each leaves it with all models READY.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from urllib.request import Request

import psutil
import pytest

from imagexplain.checkout import ROOT
from imagexplain.client.loopback import urlopen
from imagexplain.ops.observation import observe
from imagexplain.ops.processes import birth
from imagexplain.ops.server import ServerError, free_port, orphaned_workers, sha256_of_file, start, stop
from imagexplain.ops.supervisor_state import STATE_FILE, Supervisor, find_supervisor, forget
from tests.ops.supervised import Supervised, supervise
from tests.serving import archives
from tests.waiting import until

FRAGILE = archives.WORKING.replace(
    "pass", "import pathlib\n        assert not pathlib.Path('{flag}').exists(), 'this worker does not start'"
)
BUSY = archives.WORKING.replace(
    'return [b"fine"',
    "import time; ends = time.monotonic() + 5\n        while time.monotonic() < ends: pass\n        return [b'fine'",
)


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """A supervisor of three small models."""
    folder = tmp_path_factory.mktemp("supervised")
    store, run = folder / "store", folder / "run"
    archives.seal(archives.write(store, "small"))
    archives.write(store, "fragile", FRAGILE.format(flag=folder / "flag"), maxRetryTimeoutInSec=1)
    archives.write(store, "busy", BUSY)
    supervised = supervise(store, run, free_port(), "--drain", "10")
    try:
        until(supervised.is_ready)
        yield supervised
    finally:
        stop(run, quiet=True, drain_s=0)
        supervised.process.kill()
        supervised.process.wait()
        print(supervised.said())


def ask(supervised: Supervised, model: str) -> bytes:
    server = supervised.server
    request = Request(f"{server.inference}/predictions/{model}", b"x", server.headers())
    with urlopen(request, timeout=60) as answer:
        body: bytes = answer.read()
        return body


def worker_of(supervised: Supervised, model: str) -> psutil.Process:
    (found,) = [each for each in observe(supervised.server) if each.name == model]
    (worker,) = found.workers
    assert worker.process is not None
    return worker.process


def test_it_tells_what_it_serves(supervised: Supervised) -> None:
    assert supervised.ask("/livez")[0] == 200
    assert json.loads(supervised.ask("/readyz")[1])["models"] == dict.fromkeys(("busy", "fragile", "small"), "READY")
    server = supervised.server
    state = json.loads((supervised.run / "supervisor.json").read_text())
    assert (state["pid"], state["port"]) == (supervised.process.pid, server.ports["inference"] + 5)
    sums = {path.stem: sha256_of_file(path) for path in supervised.store.glob("*.mar")}
    assert server.archives == sums
    built = {"model_name": "small", "model_version": "1.0", "archive_sha256": sums["small"]}
    assert supervised.metric("imagexplain_build_info", **built) == 1
    for model in sums:
        loaded = supervised.metric("imagexplain_model_load_seconds", model_name=model)
        assert loaded is not None and 0 < loaded < 60
    log = server.logs / "access_log.log"
    assert ask(supervised, "small") == b"fine"
    until(lambda: '"POST /predictions/small HTTP/1.1" 200' in log.read_text(), 10)
    assert "GET /models/" not in log.read_text(), "what the supervisor asks is nobody's access"


def test_a_second_one_and_a_start_of_something_else_are_told_apart(supervised: Supervised) -> None:
    second = supervise(supervised.store, supervised.run, supervised.port)
    assert second.process.wait(60) == 1
    assert f"runs already, as process {supervised.process.pid}: make stop ends it" in supervised.said()
    options = {"store": supervised.store, "run": supervised.run, "port": supervised.port}
    assert start(**options) == supervised.server  # type: ignore[arg-type]
    with pytest.raises(ServerError, match=rf"process {supervised.process.pid}, serves other archives or addresses"):
        start(**options, models=["small"])  # type: ignore[arg-type]
    status = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "server.py"), "status", "--run", str(supervised.run)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"supervised by process {supervised.process.pid}, readiness http://127.0.0.1:" in status.stdout
    assert supervised.is_ready()


def test_a_stopped_worker_is_noticed_and_ended(supervised: Supervised) -> None:
    stopped = worker_of(supervised, "small")
    stopped.suspend()
    until(lambda: supervised.unready() == ["small"], 10)
    assert supervised.metric("imagexplain_model_ready", model_name="small") == 0
    with ThreadPoolExecutor(1) as threads:
        threads.submit(ask, supervised, "busy")
        until(lambda: not stopped.is_running(), 20)
        until(supervised.is_ready)
    assert ask(supervised, "small") == b"fine"
    assert supervised.metric("imagexplain_workers_ended_total", model_name="small", reason="stopped") == 1
    assert supervised.metric("imagexplain_workers_ended_total", model_name="busy", reason="stalled") == 0, "it computes"


def test_a_model_that_torchserve_has_given_up_gets_new_workers(supervised: Supervised) -> None:
    """Within a second TorchServe tries once more; then nobody would answer the request that waits."""
    flag = supervised.run.parent / "flag"
    flag.touch()
    worker_of(supervised, "fragile").kill()
    until(lambda: supervised.unready() == ["fragile"], 20)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, supervised, "fragile")
        until(lambda: (supervised.metric("imagexplain_restarts_total", model_name="fragile") or 0) >= 1, 60)
        flag.unlink()
        until(supervised.is_ready)
        assert waiting.result() == b"fine"
    assert supervised.metric("imagexplain_restarts_total", what="frontend") == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_frontend_that_is_gone_or_stopped_is_started_anew(supervised: Supervised, number: signal.Signals) -> None:
    before = supervised.metric("imagexplain_restarts_total", what="frontend")
    frontend = supervised.server.process()
    assert before is not None and frontend is not None
    workers, scratch = frontend.children(), supervised.server.scratch
    begun = time.time()
    frontend.send_signal(number)
    until(lambda: supervised.metric("imagexplain_frontend_up") == 0, 20)
    assert supervised.unready() == ["busy", "fragile", "small"]
    until(supervised.is_ready)
    assert supervised.metric("imagexplain_restarts_total", what="frontend") == before + 1
    assert not any(each.is_running() for each in [frontend, *workers])
    assert all(each.create_time() > begun for each in orphaned_workers(scratch)), "those of the new one"
    assert ask(supervised, "small") == b"fine"


def test_a_signal_lets_it_answer_and_leaves_nothing(supervised: Supervised) -> None:
    server = supervised.server
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, supervised, "busy")
        time.sleep(1)
        supervised.process.send_signal(signal.SIGTERM)
        until(lambda: supervised.ask("/readyz")[0] == 503, 5)
        assert supervised.ask("/livez")[0] == 200
        assert answer.result() == b"fine"
    assert supervised.process.wait(60) == 0
    assert server.process() is None and [path.name for path in supervised.run.iterdir()] == ["logs"]


def test_a_server_that_runs_is_taken_over_and_not_stopped_by_a_failure(tmp_path: Path) -> None:
    store, run, port = tmp_path / "store", tmp_path / "run", free_port()
    archives.write(store, "small")
    server = start(store=store, run=run, port=port)
    try:
        (store / "torn.mar").write_bytes(b"PK")
        failing = supervise(store, run, port)
        assert failing.process.wait(60) == 1
        assert "torn.mar is not a model archive" in failing.said() and server.process()
        (store / "torn.mar").unlink()
        supervised = supervise(store, run, port)
        until(supervised.is_ready)
        assert supervised.server == server
        assert stop(run, drain_s=5) and supervised.process.wait(60) == 0
        assert server.process() is None and [path.name for path in run.iterdir()] == ["logs"]
    finally:
        stop(run, quiet=True, drain_s=0)


ENDED_TWICE = """
import signal, sys
from contextlib import contextmanager
from pathlib import Path

from imagexplain.ops import supervise

@contextmanager
def ended_late(*_):
    try:
        yield
    finally:
        signal.raise_signal(signal.SIGTERM)

supervise.exported = ended_late
supervise._Supervision.go = lambda _: signal.raise_signal(signal.SIGTERM)
root, folder = map(Path, sys.argv[1:])
supervise.supervise(supervise.Settings(root, folder / "store", folder / "run", "127.0.0.1"))
"""


def test_a_second_signal_after_the_server_has_ended_leaves_no_state(tmp_path: Path) -> None:
    """The exporter takes half a second to end: by then whoever stops the supervisor may have lost patience."""
    command = [sys.executable, "-c", ENDED_TWICE, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "run").iterdir()) == []


def test_the_state_of_a_supervisor_that_had_to_be_killed_is_removed_by_whoever_stops_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        other = Supervisor(process.pid, birth(psutil.Process(process.pid)), 1)
        (tmp_path / STATE_FILE).write_text(json.dumps(asdict(other)))
        forget(tmp_path, other.pid + 1)
        assert find_supervisor(tmp_path) == other, "nobody else removes it"
        assert stop(tmp_path, quiet=True, drain_s=0)
    assert list(tmp_path.iterdir()) == []
