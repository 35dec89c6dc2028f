"""What a start looks at before it stops anything, and what is left when one ends: nothing, or an answer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request

import psutil
import pytest

from imagexplain.cli import serve
from imagexplain.client import Client
from imagexplain.client.loopback import LOOPBACK, is_loopback, reachable, stays_here, urlopen
from imagexplain.ops import server
from imagexplain.ops.server import PORTS, ROOT, Server, ServerError, find, free_port, start, stop
from imagexplain.ops.signals import ended_by_signals, undisturbed
from tests.serving import archives
from tests.waiting import until

SLOW = archives.WORKING.replace('return [b"fine"', 'import time; time.sleep(1); return [b"fine"')
BUSY = archives.WORKING.replace(
    'return [b"fine"',
    "import time; ends = time.monotonic() + 1.5\n        while time.monotonic() < ends: pass\n        return [b'fine'",
)
LARGE = archives.WORKING.replace('b"fine"', "bytes(30_000_000)")
HUNG = archives.WORKING.replace('return [b"fine"', 'import time; time.sleep(100); return [b"fine"')
LOADING = archives.WORKING.replace("pass", "import time; time.sleep(100)")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """SIGINT as a terminal's processes have it: those that a shell starts in the background begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that names a proxy, which is not there, and a .netrc with a password for every host."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def answer(running: Server, model: str, key: str | None = None) -> str:
    """What a client gets: the start of a body, a status, or the name of the error that ended the connection."""
    headers = {"Authorization": key} if key else running.headers()
    try:
        with urlopen(Request(f"{running.inference}/predictions/{model}", b"x", headers), timeout=60) as got:
            return got.read().decode()[:20]
    except HTTPError as error:
        return str(error.code)
    except URLError as error:
        return type(error.reason).__name__
    except OSError as error:
        return type(error).__name__


def accepted(running: Server) -> int:
    """Requests that TorchServe has taken on."""
    with urlopen(running.metrics, timeout=10) as text:
        lines = text.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("ts_inference_requests_total{"))


def test_requests_in_flight_are_answered_and_newcomers_refused(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "slow", SLOW)
    archives.write(tmp_path / "store", "busy", BUSY, workers=2)
    archives.write(tmp_path / "store", "large", LARGE)
    running = start(store=tmp_path / "store", run=run, port=free_port())
    key = running.headers()["Authorization"]
    reader = socket.create_connection((LOOPBACK, running.ports["inference"]))
    reader.sendall(f"GET /predictions/large HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n".encode())

    def read_slowly() -> int:
        length = 0
        while length < 30_000_000:
            data = reader.recv(1 << 20)
            if not data:
                break
            length += len(data)
            time.sleep(0.02)
        return length

    with ThreadPoolExecutor(12) as clients:
        in_flight = [clients.submit(answer, running, model) for model in ("slow", "busy") * 4]
        until(lambda: accepted(running) == 9)
        until(lambda: reader.recv(1, socket.MSG_PEEK) != b"")
        stopping = clients.submit(stop, run)
        slowly = clients.submit(read_slowly)
        newcomers = Counter[str]()
        while not stopping.done():
            newcomers[answer(running, "slow", key)] += 1
            time.sleep(0.05)
        assert [request.result() for request in in_flight] == ["fine"] * 8
        assert slowly.result() >= 30_000_000
        assert stopping.result()
    reader.close()
    assert set(newcomers) <= {"fine", "400", "ConnectionRefusedError", "ConnectionResetError"} and newcomers["400"] > 0
    assert newcomers["ConnectionResetError"] <= 1  # who came in the moment of the end
    assert running.process() is None and [path.name for path in run.iterdir()] == ["logs"]


def test_in_the_foreground_a_signal_drains_and_what_hangs_is_given_up(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "slow", SLOW)
    archives.write(tmp_path / "store", "hung", HUNG)
    port = free_port()
    command = ["start", "--foreground", "--drain", "5", "--port", str(port), "--run", str(run)]
    foreground = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "server.py"), *command, "--store", str(tmp_path / "store")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: find(run) is not None)
        running = find(run)
        assert running is not None
        until(lambda: set(map(str, server._states(running).values())) == {"['READY']"})
        time.sleep(1)  # for `start` to see the same
        with ThreadPoolExecutor(4) as clients:
            slow = [clients.submit(answer, running, "slow") for _ in range(2)]
            hung = clients.submit(answer, running, "hung")
            until(lambda: accepted(running) == 3)
            foreground.send_signal(signal.SIGTERM)
            assert [request.result() for request in slow] == ["fine"] * 2
            assert not hung.result().startswith("fine")
        told, _ = foreground.communicate(timeout=60)
    finally:
        foreground.kill()
        foreground.wait()
    assert foreground.returncode == 0 and "given up" in told and "stopped the server" in told
    assert running.process() is None and [path.name for path in run.iterdir()] == ["logs"]


@pytest.mark.parametrize(
    ("number", "when", "status"),
    [(signal.SIGTERM, "server.json", 143), (signal.SIGINT, "server.json", 130), (signal.SIGTERM, "tmp", 143)],
)
def test_a_signal_during_the_start_leaves_nothing(
    tmp_path: Path, run: Path, number: signal.Signals, when: str, status: int
) -> None:
    archives.write(tmp_path / "store", "loading", LOADING)
    command = ["start", "--port", str(free_port()), "--run", str(run), "--store", str(tmp_path / "store")]
    starting = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "server.py"), *command], stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: (run / when).exists())
        starting.send_signal(number)
        _, told = starting.communicate(timeout=60)
    finally:
        starting.kill()
        starting.wait()
    assert starting.returncode == status and "Traceback" not in told
    left = [process.pid for process in psutil.process_iter() if str(tmp_path) in " ".join(_command(process))]
    assert left == []
    assert [path.name for path in run.iterdir()] == ["logs"]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_start_that_would_fail_leaves_the_server_that_runs(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, proxies: None
) -> None:
    """On another address than usual, behind a proxy that is not there."""
    store = tmp_path / "store"
    archives.write(store, "small")
    port = free_port()
    running = start(store=store, run=run, host="127.0.0.2", port=port)
    assert running.inference == f"http://127.0.0.2:{port}" and running.workers("small") == ["READY"]
    listening = {
        connection.laddr
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in running.ports.values()
    }
    where = {address.ip.removeprefix("::ffff:") for address in listening if address.port == port}
    assert where == {"127.0.0.2"}
    assert {a.ip.removeprefix("::ffff:") for a in listening if a.port != port} == {LOOPBACK}
    client = Client(running.inference, headers=running.headers())
    assert client.post("predictions/small", b"x", "image/png").body == b"fine"

    def refused(words: str, **settings: object) -> None:
        arguments = {"store": store, "run": run, "host": "127.0.0.2", "port": port, **settings}
        with pytest.raises(ServerError, match=words):
            start(**arguments)  # type: ignore[arg-type]
        assert find(run) == running and answer(running, "small") == "fine"

    (store / "torn.mar").write_bytes(b"PK\x03\x04torn")
    refused(r"torn\.mar is not a model archive")
    (store / "torn.mar").unlink()
    shutil.copy(store / "small.mar", store / "again.mar")
    refused(r"small\.mar and \S+again\.mar are both archives of small")
    (store / "again.mar").unlink()
    with socket.create_server((LOOPBACK, 0)) as taken:
        refused(r"port \d+ \(inference\) is taken", port=taken.getsockname()[1], host=LOOPBACK)
    refused("is no address of this machine", host="192.0.2.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    refused("java not found", host=LOOPBACK)
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setattr(server.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    refused("too little room: wanted", host=LOOPBACK)


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_a_run_directory_that_cannot_be_written_is_a_message(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.write(tmp_path / "store", "small")
    (tmp_path / "file").touch()
    command = ["start", "--store", str(tmp_path / "store"), "--port", str(free_port())]
    assert serve.main([*command, "--run", str(tmp_path / place)]) == 1
    assert "run cannot be written: " in capsys.readouterr().err


def test_a_disk_that_fills_later_is_a_message_too(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.write(tmp_path / "store", "small")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "run", full)
    command = ["start", "--store", str(tmp_path / "store"), "--port", str(free_port()), "--run", str(run)]
    assert serve.main(command) == 1
    told = capsys.readouterr().err
    assert "cannot be written" in told and "No space left" in told
    assert [path.name for path in run.iterdir()] == ["logs"]


def test_two_starts_at_once_do_not_meet(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "small")
    run.mkdir()
    with server.alone(run), pytest.raises(ServerError, match="is being started"):
        start(store=tmp_path / "store", run=run, port=free_port())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "[]",
        "{}",
        '{"models": null}',
        *(
            json.dumps({**asdict(Server({}, 1, 0.0, "", "", "", ())), **odd})
            for odd in (
                {"pid": "x"},
                {"pid": -1},
                {"pid": 0},
                {"pid": 10**30},
                {"pid": None},
                {"pid": 1.5},
                {"ports": 5},
                {"models": 5},
                {"more": 1},
            )
        ),
    ],
)
def test_a_state_that_is_none_is_no_server(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    assert find(tmp_path) is None
    assert not stop(tmp_path)


def _cut_short(done: list[str]) -> None:
    with ended_by_signals():
        with undisturbed():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")
        done.append("never")


def test_signals_wait_for_the_end_of_what_must_not_be_cut() -> None:
    done: list[str] = []
    with pytest.raises(SystemExit) as ended:
        _cut_short(done)
    assert done == ["whole"] and ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt), undisturbed():
        signal.raise_signal(signal.SIGINT)
    with ThreadPoolExecutor(1) as threads:  # where Python lets nobody set handlers
        threads.submit(lambda: ended_by_signals().__enter__()).result()


def test_every_interface_is_inference_alone_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = dict(zip(PORTS, range(9000, 9005), strict=True))
    environment = server._environment(ROOT, Path("run"), Path("tmp"), ports, "0.0.0.0")
    assert {name: value for name, value in environment.items() if name.endswith("_ADDRESS")} == {
        "TS_INFERENCE_ADDRESS": "http://0.0.0.0:9000",
        "TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:9001",
        "TS_METRICS_ADDRESS": "http://127.0.0.1:9002",
        "TS_GRPC_INFERENCE_ADDRESS": "127.0.0.1",
        "TS_GRPC_MANAGEMENT_ADDRESS": "127.0.0.1",
    }
    warning = server.exposure("0.0.0.0", 9000)
    assert warning is not None
    for word in ("every address", "9000", "inference key", "no TLS", "Management, metrics and gRPC stay on 127.0.0.1"):
        assert word in warning
    assert server.exposure("127.0.0.2", 9000) is server.exposure("localhost", 9000) is None
    everywhere = Server(ports, 1, 0.0, "", "", "", (), "0.0.0.0")
    assert everywhere.inference == "http://127.0.0.1:9000" and everywhere.management == "http://127.0.0.1:9001"


@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "", "a b", "x/y", "http://x", "host:80"])
def test_a_host_that_torchserve_cannot_take_is_refused(tmp_path: Path, run: Path, host: str) -> None:
    archives.write(tmp_path / "store", "small")
    with pytest.raises(ServerError, match="HOST: wanted an IPv4 address or a name"):
        start(store=tmp_path / "store", run=run, host=host, port=free_port())


def test_a_host_without_an_address_is_refused(tmp_path: Path, run: Path) -> None:
    archives.write(tmp_path / "store", "small")
    with pytest.raises(ServerError, match=r"HOST: no\.such\.host\.invalid has no address"):
        start(store=tmp_path / "store", run=run, host="no.such.host.invalid", port=free_port())


def test_addresses_of_this_machine() -> None:
    for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"):
        assert is_loopback(host), host
    for host in ("0.0.0.0", "10.0.0.1", "::", "example.org", "localhost.example.org", ""):
        assert not is_loopback(host), host
    assert stays_here("http://[::1]:80/x") and stays_here("http://0.0.0.0:80") and stays_here("http://localhost")
    assert not stays_here("https://example.org/127.0.0.1") and not stays_here("nonsense")
    assert (reachable("0.0.0.0"), reachable("10.0.0.1"), reachable("name")) == (LOOPBACK, "10.0.0.1", "name")


@pytest.mark.parametrize(
    ("command", "environment", "wanted"),
    [
        (["serve", "HOST=0.0.0.0"], {}, 'start --host "0.0.0.0"'),
        (["demo", "HOST=0.0.0.0", "PORT=9000"], {}, 'start --port 9000 --host "0.0.0.0"'),
        (["serve"], {"HOST": "machine.example.org"}, "start"),
        (["stop", "DRAIN=5"], {}, "stop --drain 5"),
        (["serve", "MODELS=imagenet bit"], {}, "start --models imagenet bit"),
        (["supervise", "MODELS=bit", "DRAIN=5"], {}, "supervise --models bit --drain 5"),
    ],
)
def test_make_passes_on_where_to_listen(command: list[str], environment: dict[str, str], wanted: str) -> None:
    """A shell's own HOST says nothing of where to listen."""
    told = subprocess.run(
        ["make", "-n", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = (" ".join(line.split()) for line in told.stdout.splitlines() if "scripts/server.py" in line)
    assert line.split("scripts/server.py ")[1].split(";")[0].strip() == wanted


def test_no_key_goes_to_a_proxy_or_gives_way_to_a_password(proxies: None) -> None:
    """One that is asked for another host is the environment's business."""
    asked: list[str] = []
    listening = socket.create_server((LOOPBACK, 0))

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            asked.append(connection.recv(10_000).decode())
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    thread = threading.Thread(target=answer)
    thread.start()
    client = Client(f"http://{LOOPBACK}:{listening.getsockname()[1]}", "key")
    assert client.post("predictions/x", b"photo", "image/png").json() == {}
    thread.join()
    listening.close()
    assert "Authorization: Bearer key" in asked[0]
    far = Client("http://192.0.2.1", "key").connection.settings()
    assert far["trust_env"] and far["auth"] is not None
