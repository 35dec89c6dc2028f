"""The front door of a server on this machine, or of Ray Serve's nodes: nginx's start, its end, its state."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from imagexplain.client.loopback import ANYWHERE, LOOPBACK, is_loopback
from imagexplain.ops.edge_certificate import ensure_certificate
from imagexplain.ops.edge_config import Behind, BehindNodes, behind, binary, render
from imagexplain.ops.edge_keys import write_map, write_private
from imagexplain.ops.edge_settings import EdgeError, EdgeSettings
from imagexplain.ops.processes import alive, birth
from imagexplain.ops.server import DRAIN_SECONDS, Server
from imagexplain.ops.signals import undisturbed
from imagexplain.progress import say

FOLDER = "edge"
START_SECONDS = 5.0
RELOAD_SECONDS = 20.0
LOOK_SECONDS = 0.05
PRIVATE = ("management", "metrics", "grpc_inference", "grpc_management")
"""TorchServe's ports that nobody outside may reach."""

_LEAVING = "is shutting down"  # in the title of a worker that only finishes what it has begun


@dataclass(frozen=True)
class Edge:
    """A running front door.

    Attributes:
        pid: Number of nginx's master process.
        started: Its start, as :func:`imagexplain.ops.processes.birth` gives it.
        listen: Address on which clients come.
        port: Their port.
        certificate: File of the certificate that clients see.
        folder: Directory of the state: keys, certificate, configuration, logs.
    """

    pid: int
    started: float
    listen: str
    port: int
    certificate: str
    folder: str

    @property
    def url(self) -> str:
        """Base address for clients on this machine."""
        here = {ANYWHERE: LOOPBACK, "::": "::1"}.get(self.listen, self.listen)
        return f"https://{f'[{here}]' if ':' in here else here}:{self.port}"

    @property
    def logs(self) -> tuple[Path, Path]:
        """Files of requests, one line of JSON each, and of errors."""
        return Path(self.folder, "access.log"), Path(self.folder, "error.log")

    def process(self) -> psutil.Process | None:
        """The master process, or None when it has ended, even if another took its number."""
        return alive(self.pid, self.started)

    def workers(self) -> dict[int, bool]:
        """The worker processes, each with whether it takes new connections."""
        process = self.process()
        found = {}
        for child in process.children() if process else ():
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if "worker process" in title:
                found[child.pid] = _LEAVING not in title
        return found


def find(run: Path) -> Edge | None:
    """The front door that runs with this run directory, or None."""
    try:
        edge = Edge(**json.loads((run / FOLDER / "edge.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return edge if edge.process() else None


def start(server: Server | Path, settings: EdgeSettings) -> Edge:
    """Start nginx, and return once it takes connections; one that runs takes the settings over.

    Args:
        server: Running TorchServe; before Ray Serve, the directory in which the front door's state has a folder.
        settings: Settings, which name Ray Serve's nodes if they stand behind it.

    Raises:
        EdgeError: there is no server, or it can be reached past the front door, a port is taken, nginx is not
            installed, or it refuses its configuration (with its own words).
    """
    facts = _checked(server, settings)
    running = find(facts.run)
    if running:
        say(f"already running at {running.url}: taking the settings over")
        return reload(server, settings)
    folder = facts.run / FOLDER
    _check_free(settings)
    with _alone(folder):
        fresh = _written(facts, settings, folder, "nginx.conf.new")
        (folder / "nginx.pid").unlink(missing_ok=True)
        done = _nginx(fresh.replace(folder / "nginx.conf"), folder)
        if done.returncode:
            raise EdgeError(f"nginx does not start:\n{_words(done, folder)}")
        edge = _recorded(settings, folder)
    say(f"front door at {edge.url}, logs {folder}/access.log and error.log")
    return edge


def reload(server: Server | Path, settings: EdgeSettings) -> Edge:
    """Let the running nginx take over settings, keys, certificate and the addresses of what stands behind it.

    What it has begun goes on with the old ones. On return, whoever connects meets the new ones.

    Raises:
        EdgeError: no front door runs, or nginx refuses the new configuration: the old one remains.
    """
    facts = _checked(server, settings)
    folder = facts.run / FOLDER
    running = find(facts.run)
    if running is None:
        raise EdgeError(f"no front door runs with {facts.run}: imagexplain edge start")
    _check_free(settings, running)
    with _alone(folder):
        fresh = _written(facts, settings, folder, "nginx.conf.new")
        configuration = folder / "nginx.conf"
        before = configuration.read_text()
        fresh.replace(configuration)
        try:
            _renew(running)
        except EdgeError:
            write_private(configuration, before)
            raise
        return _recorded(settings, folder)


def reload_keys(run: Path) -> bool:
    """Let the running nginx take over the clients' keys; False if none runs.

    Raises:
        EdgeError: the keys are written, but nginx does not take them over.
    """
    edge = find(run)
    write_map(run / FOLDER)
    if edge is None:
        return False
    _renew(edge)
    return True


def stop(run: Path, *, drain_s: float = DRAIN_SECONDS, quiet: bool = False) -> bool:
    """Stop the front door of this run directory; False when none was running.

    No connection is taken any more; what has been accepted is answered before, for `drain_s` seconds at most.

    Raises:
        EdgeError: nginx is another user's.
    """
    edge = find(run)
    process = edge.process() if edge else None
    if edge is None or process is None:
        return False
    family = [process, *process.children()]
    try:
        with undisturbed():
            for number, seconds in ((signal.SIGQUIT, drain_s), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
                for each in family if number == signal.SIGKILL else [process]:
                    _send(each, number)
                if _have_ended(family, seconds):
                    break
                if number == signal.SIGQUIT and not quiet:
                    say(f"requests are left after {seconds:.0f} s: they are given up")
    except psutil.AccessDenied:
        raise EdgeError(f"nginx, process {edge.pid}, is another user's: it cannot be stopped") from None
    for name in ("edge.json", "nginx.pid"):
        (run / FOLDER / name).unlink(missing_ok=True)
    if not quiet:
        say(f"stopped the front door at {edge.url}")
    return True


def check(facts: Behind | BehindNodes, settings: EdgeSettings) -> None:
    """Let nginx read the configuration that these settings make, and start nothing.

    Raises:
        EdgeError: nginx is not installed, or refuses it (with its own words).
    """
    folder = facts.run / FOLDER
    with _alone(folder):
        _written(facts, settings, folder, "nginx.conf.check").unlink()


def _checked(server: Server | Path, settings: EdgeSettings) -> Behind | BehindNodes:
    """The facts of what stands behind the front door, which nobody may reach past it.

    Ray's nodes are on other machines, of whose network nothing is known here.
    """
    if settings.ray is None and not isinstance(server, Path):
        check_private(server)
    return behind(server, settings)


def _written(facts: Behind | BehindNodes, settings: EdgeSettings, folder: Path, name: str) -> Path:
    try:
        (folder / "tmp").mkdir(exist_ok=True, mode=0o700)
        write_map(folder)
        path = folder / name
        write_private(path, render(settings, facts, _certificate(settings, folder), binary()))
    except OSError as error:
        raise EdgeError(f"the front door's state cannot be written to {folder}: {error}") from None
    done = _nginx(path, folder, "-t", "-q")
    if done.returncode:
        raise EdgeError(f"nginx refuses its configuration:\n{_words(done, folder)}")
    return path


def _certificate(settings: EdgeSettings, folder: Path) -> tuple[Path, Path]:
    if settings.tls.certificate and settings.tls.key:
        return settings.tls.certificate, settings.tls.key
    return ensure_certificate(folder, settings.listen)


def _nginx(configuration: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [binary(), *arguments, "-c", str(configuration), "-p", str(folder), "-e", str(folder / "error.log")]
    # Its output goes to a file: the daemon keeps it open, and whoever reads a pipe would wait for its end.
    with (folder / "console.log").open("w+") as console:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=console, stderr=console, text=True, check=False
        )
        console.seek(0)
        done.stderr = console.read()
    return done


def _words(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    return done.stderr.strip() or f"status {done.returncode}; see {folder}/error.log"


def _recorded(settings: EdgeSettings, folder: Path) -> Edge:
    """The front door that runs, once its process is known, and written down for `find`."""
    deadline = time.monotonic() + START_SECONDS
    while not (number := _read(folder / "nginx.pid")):
        if time.monotonic() > deadline:
            raise EdgeError(f"nginx wrote no process number to {folder}/nginx.pid; see error.log there")
        time.sleep(LOOK_SECONDS)
    certificate, _ = _certificate(settings, folder)
    edge = Edge(
        int(number), birth(psutil.Process(int(number))), settings.listen, settings.port, str(certificate), str(folder)
    )
    write_private(folder / "edge.json", json.dumps(asdict(edge), indent=2) + "\n")
    return edge


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _renew(edge: Edge) -> None:
    """Have nginx read its configuration anew, and wait until its old workers take no more connections."""
    log = edge.logs[1]
    read = log.stat().st_size if log.exists() else 0
    before = edge.workers()
    _send(psutil.Process(edge.pid), signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_SECONDS
    while time.monotonic() < deadline:
        workers = edge.workers()
        fresh = [pid for pid, takes in workers.items() if takes and pid not in before]
        if fresh and not any(takes for pid, takes in workers.items() if pid in before):
            return
        time.sleep(LOOK_SECONDS)
    with log.open(errors="replace") as file:
        file.seek(read)
        faults = "\n".join(line for line in file.read().splitlines() if "[emerg]" in line)
    raise EdgeError(f"nginx keeps its old configuration:\n{faults or f'see {log}'}")


def _have_ended(family: list[psutil.Process], seconds: float) -> bool:
    """Wait for the end of processes, at most so long; one that has ended counts, though nobody has asked how."""
    deadline = time.monotonic() + seconds
    while any(map(_lives, family)):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def check_private(server: Server) -> None:
    """Raise EdgeError if TorchServe can be reached past the front door."""
    if not is_loopback(server.host):
        raise EdgeError(f"TorchServe itself listens on {server.host}: start it without HOST=, and set `listen` instead")
    wanted = {server.ports[use]: use for use in ("inference", *PRIVATE)}
    process = server.process()
    if process is None:
        return
    for connection in process.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in wanted:
            host = connection.laddr.ip.removeprefix("::ffff:")
            if not is_loopback(host):
                raise EdgeError(f"port {connection.laddr.port} ({wanted[connection.laddr.port]}) listens on {host}")


def _check_free(settings: EdgeSettings, running: Edge | None = None) -> None:
    """Raise EdgeError if nginx could not listen where it does not yet."""
    for use, host, port in (
        ("clients", settings.listen, settings.port),
        *((f"legacy {model}", LOOPBACK, port) for model, port in settings.legacy.items()),
    ):
        if running and _listens(running, port):
            continue
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise EdgeError(f"listen: {host} is no address of this machine") from None
                raise EdgeError(f"port {port} ({use}) cannot be opened: {error.strerror}") from None


def _listens(edge: Edge, port: int) -> bool:
    process = edge.process()
    connections = process.net_connections("tcp") if process else []
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep two starts with one state directory apart. Raises EdgeError if another one is under way."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EdgeError(f"{folder}: cannot be written: {error}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EdgeError(f"a front door is being started with {folder} already") from None
        yield
    finally:
        os.close(handle)
