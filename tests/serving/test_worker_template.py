"""Workers as copies of one process: what they are given, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from imagexplain.ops import fork_workers, worker_launcher, worker_template
from tests.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="workers are copies on Linux alone")

TELLS = """
import json, os, random, sys, time
print(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:], "folder": os.getcwd(), "path": sys.path[:2],
                  "word": os.environ.get("WORD"), "drawn": random.random(), "decimal": "decimal" in sys.modules}))
print("to the other stream", file=sys.stderr, flush=True)
sys.stdout.flush()
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


LISTENS = """
import json, os, socket, sys, time
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
listener.listen(1)
print(json.dumps({"pid": os.getpid()}), flush=True)
connection, _ = listener.accept()
connection.sendall(b"here")
time.sleep(60)
"""


@dataclass
class Template:
    """A running template, and the process that it takes for the server."""

    process: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes]
    socket: Path
    script: Path

    def launch(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A launcher, as TorchServe starts one."""
        return subprocess.Popen(
            [sys.executable, "-I", "-S", worker_launcher.__file__, str(self.socket), str(self.script), *arguments],
            env={**os.environ, **environment},
            cwd=self.script.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def workers(self) -> list[psutil.Process]:
        """The copies that live."""
        found = psutil.Process(self.process.pid).children()
        return [worker for worker in found if worker.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Template]:
    """A template that has imported little."""
    (tmp_path / "script").mkdir()
    script = tmp_path / "script" / "worker.py"
    script.write_text(TELLS)
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "pid").write_text(str(server.pid))
    address = tmp_path / "template"
    modules = ("decimal", "no_such_module", "setproctitle")
    command = [sys.executable, "-P", worker_template.__file__, str(address), str(tmp_path / "pid"), *modules]
    process = subprocess.Popen(command)
    (tmp_path / fork_workers.PID_FILE).write_text(str(process.pid))
    with socket.socket(socket.AF_UNIX) as connection:  # the file is there before anything listens
        until(lambda: connection.connect_ex(str(address)) == 0)
    try:
        yield Template(process, server, address, script)
    finally:
        for each in (server, process):
            each.kill()
            each.wait()


def told(launcher: subprocess.Popen[str]) -> dict[str, object]:
    """The first line of a worker's output."""
    assert launcher.stdout is not None
    answer: dict[str, object] = json.loads(launcher.stdout.readline())
    return answer


def test_a_worker_is_as_if_an_interpreter_had_been_started(template: Template) -> None:
    launcher = template.launch("0", "3", WORD="zwölf", PYTHONPATH="/first:/second")
    output, errors = launcher.communicate(timeout=10)
    found = json.loads(output)
    assert found["arguments"] == ["0", "3"]
    assert found["folder"] == str(template.script.parent)
    assert found["path"] == [str(template.script.parent), "/first"]
    assert (found["word"], found["decimal"]) == ("zwölf", True)
    assert errors == "to the other stream\n"
    assert launcher.returncode == 3


def test_workers_draw_numbers_of_their_own(template: Template) -> None:
    drawn = {told(template.launch("0", "0"))["drawn"] for _ in range(3)}
    assert len(drawn) == 3


def test_an_error_is_told_and_is_the_status(template: Template) -> None:
    template.script.write_text("raise RuntimeError('no such model')")
    launcher = template.launch()
    _, errors = launcher.communicate(timeout=10)
    assert "RuntimeError: no such model" in errors
    assert launcher.returncode == 1
    assert template.process.poll() is None


def test_the_end_of_the_launcher_is_that_of_its_worker_alone(template: Template) -> None:
    one, other = template.launch("60", "0"), template.launch("60", "0")
    ended, goes_on = told(one)["pid"], told(other)["pid"]
    one.kill()
    until(lambda: [worker.pid for worker in template.workers()] == [goes_on])
    assert ended != goes_on
    assert other.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_killed_worker_ends_its_launcher_by_the_same_signal(template: Template, number: signal.Signals) -> None:
    launcher = template.launch("60", "0")
    os.kill(int(str(told(launcher)["pid"])), number)
    launcher.wait(timeout=10)
    assert launcher.returncode == -number
    assert told(template.launch("0", "0"))["decimal"]


def test_a_stopped_template_holds_up_no_worker(template: Template) -> None:
    template.process.send_signal(signal.SIGSTOP)
    impatient = "import runpy, sys; runpy.run_path(sys.argv[1])['main'](sys.argv[2], sys.argv[3:], 0.5)"
    command = [sys.executable, "-I", "-S", "-c", impatient, worker_launcher.__file__]
    output = template.script.with_name("output")  # no pipe, of which the template has been sent the other end
    with output.open("w") as file:
        started = subprocess.run([*command, str(template.socket), str(template.script), "0", "7"], stdout=file)
    assert started.returncode == 7
    assert not json.loads(output.read_text())["decimal"]  # an interpreter of its own
    template.process.send_signal(signal.SIGCONT)
    until(lambda: not template.workers())
    assert told(template.launch("0", "0"))["decimal"]


def test_the_launcher_holds_the_connection_of_a_killed_worker_until_something_is_sent(template: Template) -> None:
    """TorchServe forgets a batch that it is collecting as the connection ends."""
    template.script.write_text(LISTENS)
    address = str(template.script.with_name("server"))
    launcher = template.launch(address)
    worker = int(str(told(launcher)["pid"]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(address)
        assert server.recv(4) == b"here"
        launcher.send_signal(signal.SIGSTOP)  # so that its patience does not end
        os.kill(worker, signal.SIGKILL)
        until(lambda: not template.workers())
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.recv(1)
        server.sendall(b"a batch")
        launcher.send_signal(signal.SIGCONT)
        server.settimeout(10)
        with suppress(ConnectionResetError):  # for the batch was not read
            assert server.recv(1) == b""
    assert launcher.wait(timeout=10) == -signal.SIGKILL


def test_a_stopped_worker_ends_with_its_launcher(template: Template) -> None:
    launcher = template.launch("60", "0")
    os.kill(int(str(told(launcher)["pid"])), signal.SIGSTOP)
    launcher.kill()
    until(lambda: not template.workers())


@pytest.mark.parametrize("ends", ["server", "process"])
def test_nothing_is_left_of_a_server_or_a_template_that_ends(template: Template, ends: str) -> None:
    launchers = [template.launch("60", "0") for _ in range(3)]
    workers = [psutil.Process(int(str(told(launcher)["pid"]))) for launcher in launchers]
    getattr(template, ends).kill()
    _, left = psutil.wait_procs(workers, timeout=10)
    assert not left
    for launcher in launchers:
        assert launcher.wait(timeout=10) == -signal.SIGKILL
    template.process.wait(timeout=10)


def test_without_a_template_a_worker_is_an_interpreter(template: Template) -> None:
    template.process.kill()
    template.process.wait()
    launcher = template.launch("0", "5")
    found = told(launcher)
    assert (found["pid"], found["decimal"]) == (launcher.pid, False)
    assert launcher.wait(timeout=10) == 5


def test_copies_are_found_by_the_command_line_that_was_meant(template: Template) -> None:
    launcher = template.launch("60", "0")
    pid = told(launcher)["pid"]
    (copy,) = fork_workers.copies(template.socket.parent)
    assert copy.pid == pid
    assert fork_workers.words_of(copy)[-3:] == [str(template.script), "60", "0"]


def test_a_template_is_ended_with_its_copies(template: Template) -> None:
    launcher = template.launch("60", "0")
    copy = psutil.Process(int(str(told(launcher)["pid"])))
    fork_workers.end(template.socket.parent)
    _, left = psutil.wait_procs([copy], timeout=5)
    assert not left
    template.process.wait(timeout=5)


@pytest.mark.parametrize("said", ["", "1", "999999999", "x"])
def test_no_copies_without_a_template(tmp_path: Path, said: str) -> None:
    (tmp_path / fork_workers.PID_FILE).write_text(said)
    assert fork_workers.copies(tmp_path) == []
    fork_workers.end(tmp_path)  # nothing, least of all another's process


def test_what_connects_and_says_nonsense_harms_nobody(template: Template) -> None:
    import socket

    for said in (b"", b"\0\0\0\4{}{}", b"\0\0\0\2[]"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(template.socket))
            connection.sendall(said)
    assert told(template.launch("0", "0"))["decimal"]


def test_a_launcher_that_ends_before_it_has_read_harms_nobody(template: Template) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(template.socket))
        connection.sendall(b"\0\0\0\2[]")
        assert connection.recv(1, socket.MSG_PEEK)  # which stays unread: to close is then a reset
    assert told(template.launch("0", "0"))["decimal"]


def test_others_may_not_connect(template: Template) -> None:
    assert template.socket.stat().st_mode & 0o177 == 0


def test_a_template_imports_what_its_archives_need(tmp_path: Path) -> None:
    def needed(*architectures: str | None) -> set[str]:
        for number, architecture in enumerate(architectures):
            with zipfile.ZipFile(tmp_path / f"{number}.mar", "w") as archive:
                if architecture is not None:
                    archive.writestr("spec.json", json.dumps({"architecture": architecture}))
        modules = fork_workers.modules_of(tmp_path / f"{number}.mar" for number in range(len(architectures)))
        return {"ts.model_loader", "torch", "timm"} & set(modules)

    assert needed(None) == {"ts.model_loader"}
    assert needed("lanet", "onnx", None) == {"ts.model_loader", "torch"}
    assert needed("lanet", "bit") == needed("tensormask") == {"ts.model_loader", "torch", "timm"}


def test_workers_start_from_nothing_where_they_are_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fork_workers.SWITCH, "0")
    command = fork_workers.command(tmp_path, tmp_path, os.environ, [])
    assert command == [sys.executable, "-m", "ts.model_server"]
    assert not list(tmp_path.iterdir())


def test_no_copies_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_workers, "GPU", tmp_path)
    assert not fork_workers.can_fork()
