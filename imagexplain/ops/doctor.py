"""Checks of a machine, its archives and its server: each is a function of observed facts, and makes no observation.

:mod:`imagexplain.ops.machine` observes; here is what the facts mean, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from imagexplain.ops.key_renewal import BEFORE
from imagexplain.ops.server import SPARE_BYTES

Status = Literal["ok", "warning", "failure"]

PYTHON_TESTED, PYTHON_LEAST = (3, 11), (3, 11)
JAVA_LEAST = 17
COPY_MIB, FRESH_MIB = 113, 509
"""Private memory of an idle worker, MiB at most for a classifier: of a copy, and of one that starts from nothing."""
SHARED_MIB, JAVA_MIB = 400, 230
"""Memory that copies share once, and that of TorchServe's Java process, MiB."""
LOW_MEMORY = 0.05
"""Part of the memory that is to be free while a server runs."""
MIB, GB = 1 << 20, 10**9
CLOCK_SLACK = timedelta(minutes=5)
NAMED = 5
"""Number of packages or files that a line names."""


@dataclass(frozen=True)
class Finding:
    """The result of a check, fit for JSON.

    Attributes:
        check: Name of the check.
        status: ``ok``, ``warning`` for what may go wrong, ``failure`` for what does not work.
        said: Findings.
        advice: Words on what to do; empty where all is well.
    """

    check: str
    status: Status
    said: str
    advice: str = ""


@dataclass(frozen=True)
class Python:
    """The interpreter that runs: its version, and the folder of its environment."""

    version: tuple[int, int, int]
    prefix: str


@dataclass(frozen=True)
class Package:
    """A distribution: installed version and pinned one, None where there is none; and whether the service needs it."""

    name: str
    installed: str | None
    pinned: str | None
    needed: bool


@dataclass(frozen=True)
class Java:
    """The Java that a start would take.

    Attributes:
        home: Folder; None where there is none.
        said: First line of ``java -version``; empty where it does not run.
        named: Truth of JAVA_HOME naming the folder.
    """

    home: str | None
    said: str = ""
    named: bool = False


@dataclass(frozen=True)
class Port:
    """A port that a start would take.

    Attributes:
        use: Name of the API.
        number: Number.
        fault: Error of listening there; empty where it is free.
        owner: Name, process and command line of who listens, as far as the system tells.
        ours: Truth of the listener being the server of this run directory.
    """

    use: str
    number: int
    fault: str = ""
    owner: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Memory:
    """Memory of the machine, bytes, and what is to be served in it.

    Attributes:
        total: Bytes of the machine, or of the control group.
        available: Bytes that are free.
        workers: Number of workers of the archives.
        forked: Truth of workers being copies of one process.
        private: Bytes of the private memory of the server's processes; None where none runs.
    """

    total: int
    available: int
    workers: int
    forked: bool
    private: int | None = None


@dataclass(frozen=True)
class Disk:
    """Room, bytes.

    Attributes:
        folder: Directory of the server's state, or the nearest above it.
        free: Bytes that are free; -1 where nothing can be written.
        unpacked: Bytes of the unpacked archives.
        running: Truth of the archives being unpacked there already.
    """

    folder: str
    free: int
    unpacked: int
    running: bool = False


@dataclass(frozen=True)
class Cores:
    """Cores that may be used, threads of each worker (None: one for each core), workers."""

    usable: float
    threads: str | None
    workers: int


@dataclass(frozen=True)
class Gpus:
    """GPUs by name; the version of CUDA that torch was built for, and what torch sees, None where nobody asked."""

    names: tuple[str, ...] = ()
    cuda: str | None = None
    seen: int | None = None


@dataclass(frozen=True)
class Program:
    """A program that some commands want: its path, None where it is not found; what wants it, and whether it is."""

    name: str
    path: str | None
    wanted_by: str
    wanted: bool = False


@dataclass(frozen=True)
class Archive:
    """An archive of the store.

    Attributes:
        file: Name of the file.
        fault: Error that keeps it from being served; empty for none.
        version: Version of the package that it carries; None where it carries none.
        differing: Names of the files of the package in it that differ from the installed package's.
        summed: Truth of its carrying sums of its files.
    """

    file: str
    fault: str = ""
    version: str | None = None
    differing: tuple[str, ...] = ()
    summed: bool = True


@dataclass(frozen=True)
class State:
    """The server's state directory.

    Attributes:
        folder: Directory.
        stated: Process of the server that the directory names; None without one.
        alive: Truth of that process being the server.
        current: Truth of its serving the archives as they are in the store now.
        supervisor: Process of the supervisor, if one runs.
        edge: Truth of a front door running; None where none was started.
    """

    folder: str
    stated: int | None = None
    alive: bool = False
    current: bool = True
    supervisor: int | None = None
    edge: bool | None = None


@dataclass(frozen=True)
class Readiness:
    """State of each served model, READY, LOADING or UNAVAILABLE; the error of asking, if there was one."""

    models: Mapping[str, str]
    fault: str = ""
    logs: str = ""


@dataclass(frozen=True)
class KeyFile:
    """The file of keys.

    Attributes:
        path: File.
        mode: Permissions; None where there is no file.
        own: Truth of its belonging to who asks.
        expiry: Time at which each key ends.
        fault: Error of reading it.
        accepted: Truth of the server taking the management key; None where nobody asked.
    """

    path: str
    mode: int | None = None
    own: bool = True
    expiry: Mapping[str, datetime] | None = None
    fault: str = ""
    accepted: bool | None = None


@dataclass(frozen=True)
class Clock:
    """The clock's time, and the latest time of a file that was written before now; synchronisation where known."""

    now: datetime
    latest: datetime
    latest_file: str
    synchronised: bool | None = None


@dataclass(frozen=True)
class Facts:
    """All that was observed."""

    python: Python
    packages: tuple[Package, ...]
    java: Java
    ports: tuple[Port, ...]
    memory: Memory
    disk: Disk
    cores: Cores
    gpus: Gpus
    programs: tuple[Program, ...]
    archives: tuple[Archive, ...]
    store: str
    state: State
    readiness: Readiness | None
    keys: KeyFile | None
    clock: Clock


def examine(facts: Facts) -> list[Finding]:
    """All findings, in the order in which a person would look."""
    return [
        check_python(facts.python),
        check_packages(facts.packages),
        check_java(facts.java),
        *(check_program(program) for program in facts.programs),
        check_cores(facts.cores),
        check_memory(facts.memory),
        check_disk(facts.disk),
        check_gpus(facts.gpus),
        check_clock(facts.clock),
        *check_archives(facts.archives, facts.store),
        *(check_port(port) for port in facts.ports),
        *check_state(facts.state),
        *([check_keys(facts.keys, facts.clock.now)] if facts.keys else ()),
        *(check_readiness(facts.readiness) if facts.readiness else ()),
    ]


def check_python(python: Python) -> Finding:
    """Compare the interpreter's version with those that are tested."""
    said = ".".join(map(str, python.version)) + f" in {python.prefix}"
    if python.version[:2] < PYTHON_LEAST:
        return Finding("python", "failure", said, "wanted 3.11 or later: make setup PYTHON=python3.11")
    if python.version[:2] != PYTHON_TESTED:
        return Finding("python", "warning", said, "the tests run with 3.11")
    return Finding("python", "ok", said)


def check_packages(packages: Sequence[Package]) -> Finding:
    """Look for needed packages that are missing, and for versions that were not tested."""
    missing = [each.name for each in packages if each.needed and each.installed is None]
    others = [
        f"{each.name} {each.installed} (tested: {each.pinned})"
        for each in packages
        if each.installed and each.pinned and each.installed.partition("+")[0] != each.pinned
    ]
    if missing:
        return Finding("packages", "failure", f"not installed: {_listed(missing)}", "make setup")
    if others:
        advice = "if something fails, install the tested versions: rm .venv/.installed && make setup"
        return Finding("packages", "warning", f"other versions than tested: {_listed(others)}", advice)
    installed = sum(each.installed is not None for each in packages)
    return Finding("packages", "ok", f"{installed} installed, each in the tested version")


def check_java(java: Java) -> Finding:
    """Look for a Java that runs and is not too old."""
    if java.home is None:
        return Finding("java", "failure", "not found", "make setup installs one, or set JAVA_HOME")
    where = f"JAVA_HOME, {java.home}," if java.named else java.home
    if not java.said:
        advice = "unset JAVA_HOME for the one of make setup" if java.named else "make setup installs another one"
        return Finding("java", "failure", f"{where} holds no java that runs", advice)
    version = _java_version(java.said)
    if version is not None and version < JAVA_LEAST:
        return Finding("java", "failure", f"{java.said} in {java.home}", f"wanted {JAVA_LEAST} or later")
    return Finding("java", "ok", f"{java.said} in {java.home}")


def _java_version(said: str) -> int | None:
    """The major version in a line such as ``openjdk version "21.0.2" 2024-01-16``; 1.8 is 8."""
    numbers = said.partition('"')[2].partition('"')[0].split(".")
    if not numbers[0].isdigit():
        return None
    old = numbers[0] == "1" and len(numbers) > 1 and numbers[1].isdigit()
    return int(numbers[1] if old else numbers[0])


def check_program(program: Program) -> Finding:
    """Tell whether a program is there that some commands want."""
    if program.path:
        return Finding(program.name, "ok", program.path)
    if program.wanted:
        return Finding(program.name, "failure", "not found", f"{program.wanted_by} wants it: install {program.name}")
    return Finding(program.name, "ok", f"not found; only {program.wanted_by} wants it")


def check_cores(cores: Cores) -> Finding:
    """Compare the workers' threads with the cores."""
    said = f"{cores.usable:g} for {cores.workers} workers"
    if cores.threads is None:
        return Finding("cores", "ok", f"{said} of as many threads each")
    said = f"{said} of OMP_NUM_THREADS={cores.threads} threads each"
    if not cores.threads.isdigit() or int(cores.threads) < 1:
        return Finding("cores", "failure", said, "wanted a number of threads: unset OMP_NUM_THREADS")
    if int(cores.threads) > cores.usable:
        return Finding("cores", "warning", said, "more threads than cores slow every request: unset OMP_NUM_THREADS")
    return Finding("cores", "ok", said)


def check_memory(memory: Memory) -> Finding:
    """Compare the memory with what the workers took where they were measured, or with what they take now."""
    free = f"{memory.available / MIB:,.0f} of {memory.total / MIB:,.0f} MiB free"
    fewer = 'serve fewer models: make serve MODELS="imagenet bit"'
    if memory.private is not None:
        said = f"{free}; the server's processes hold {memory.private / MIB:,.0f} MiB of their own"
        if memory.available < LOW_MEMORY * memory.total:
            return Finding("memory", "warning", said, f"a large request may end a worker: {fewer}")
        return Finding("memory", "ok", said)
    needed = JAVA_MIB + (SHARED_MIB + COPY_MIB * memory.workers if memory.forked else FRESH_MIB * memory.workers)
    said = f"{free}; {memory.workers} idle workers and TorchServe take about {needed:,} MiB"
    if needed * MIB > memory.total:
        return Finding("memory", "failure", said, fewer)
    if needed * MIB > memory.available:
        return Finding("memory", "warning", said, f"end what takes it, or {fewer}")
    return Finding("memory", "ok", said)


def check_disk(disk: Disk) -> Finding:
    """Compare the room with what the unpacked archives and the logs take."""
    if disk.free < 0:
        return Finding("disk", "failure", f"{disk.folder} cannot be written", "choose another with --run")
    needed = SPARE_BYTES + (0 if disk.running else disk.unpacked)
    said = f"{disk.free / GB:,.1f} GB free in {disk.folder}, {needed / GB:,.2f} GB wanted"
    if disk.free < needed:
        return Finding("disk", "failure", said, "make room, or choose another folder with --run")
    if disk.free < 4 * needed:
        return Finding("disk", "warning", said, "logs grow: make room")
    return Finding("disk", "ok", said)


def check_gpus(gpus: Gpus) -> Finding:
    """Tell whether torch sees the GPUs that are there."""
    if not gpus.names:
        return Finding("gpu", "ok", "none; workers compute on the CPU")
    said = ", ".join(gpus.names)
    if gpus.cuda is None:
        return Finding("gpu", "warning", f"{said}, and torch is built for CPUs", "install torch for CUDA")
    if gpus.seen == 0:
        advice = f"torch is built for CUDA {gpus.cuda}: compare nvidia-smi's driver, and CUDA_VISIBLE_DEVICES"
        return Finding("gpu", "warning", f"{said}, of which torch sees none", advice)
    return Finding("gpu", "ok", f"{said}; torch sees {gpus.seen}, CUDA {gpus.cuda}")


def check_clock(clock: Clock) -> Finding:
    """Look for files from the future: keys end by the clock."""
    said = clock.now.isoformat(" ", "seconds")
    if clock.latest > clock.now + CLOCK_SLACK:
        written = f"{clock.latest_file} was written at {clock.latest.isoformat(' ', 'seconds')}"
        return Finding("clock", "warning", f"{said}, but {written}", "set the clock: keys end by it")
    if clock.synchronised is False:
        return Finding("clock", "warning", f"{said}, not synchronised", "keys end by the clock: timedatectl set-ntp on")
    return Finding("clock", "ok", said)


def check_archives(archives: Sequence[Archive], store: str) -> Iterator[Finding]:
    """Yield what is wrong with archives, or one line for all."""
    if not archives:
        yield Finding("archives", "failure", f"none in {store}", "make archives")
        return
    faults = [archive for archive in archives if archive.fault]
    for archive in faults:
        yield Finding("archives", "failure", archive.fault, "make archives, or take it out of the store")
    older = [f"{each.file} ({each.version})" for each in archives if each.differing]
    if older:
        first = next(each for each in archives if each.differing)
        said = f"built from other code than is installed: {_listed(older)}; in {first.file} {_listed(first.differing)}"
        yield Finding("archives", "warning", said, "make archives")
    unsummed = [archive.file for archive in archives if not archive.fault and not archive.summed]
    if unsummed:
        yield Finding("archives", "warning", f"without sums of their files: {_listed(unsummed)}", "trust who made them")
    if not faults and not older and not unsummed:
        yield Finding("archives", "ok", f"{len(archives)} in {store}, whole and of the installed code")


def check_port(port: Port) -> Finding:
    """Tell who has a port that a start would take."""
    name = f"port {port.number}"
    if port.ours:
        return Finding(name, "ok", f"{port.use}: this server's")
    if port.fault:
        whose = port.owner or "a process that this user may not see"
        return Finding(name, "failure", f"{port.use}: {port.fault}: {whose}", "stop that, or make serve PORT=9000")
    return Finding(name, "ok", f"{port.use}: free")


def check_state(state: State) -> Iterator[Finding]:
    """Yield what the state directory tells of server, supervisor and front door."""
    if state.stated is None:
        yield Finding("server", "ok", f"none runs with {state.folder}: make serve starts one")
    elif not state.alive:
        said = f"process {state.stated} ended without being stopped"
        yield Finding("server", "warning", said, f"make serve starts another one; why it ended: {state.folder}/logs")
    elif not state.current:
        said = f"process {state.stated}; archives or settings have changed since its start"
        yield Finding("server", "warning", said, "make serve starts it anew with those")
    else:
        watched = f", supervised by process {state.supervisor}" if state.supervisor else ""
        yield Finding("server", "ok", f"process {state.stated}{watched}")
    if state.edge is False:
        said = "has ended without being stopped"
        yield Finding("front door", "warning", said, f"make serve-edge; why: {state.folder}/edge/error.log")
    elif state.edge:
        yield Finding("front door", "ok", "runs")


def check_keys(keys: KeyFile, now: datetime) -> Finding:
    """Look at the key file: who may read it, whether it is the server's, and when its keys end."""
    if keys.mode is None:
        advice = "no key, no request: make stop, make serve"
        return Finding("keys", "failure", f"{keys.path} is missing, though the server runs", advice)
    if keys.mode & 0o077:
        said = f"{keys.path} may be read by others (mode {keys.mode:03o})"
        return Finding("keys", "failure", said, f"chmod 600 {keys.path}, and new keys: make stop, make serve")
    if keys.fault or keys.expiry is None:
        mine = "" if keys.own else ", which is another user's"
        return Finding("keys", "failure", f"{keys.path}{mine}: {keys.fault}", "make stop, make serve")
    if keys.accepted is False:
        said = f"the server refuses the management key of {keys.path}"
        return Finding("keys", "failure", said, "the file is another server's or changed: make stop, make serve")
    kind = min(keys.expiry, key=lambda kind: keys.expiry[kind] if keys.expiry else now)
    ends = keys.expiry[kind]
    when = ends.isoformat(" ", "minutes")
    if ends <= now:
        return Finding("keys", "failure", f"the {kind} key ended at {when}", "make stop, make serve")
    if ends - now < BEFORE:
        advice = "a supervisor renews it; without one: make stop, make serve"
        return Finding("keys", "warning", f"the {kind} key ends at {when}", advice)
    return Finding("keys", "ok", f"valid until {when}, read by its owner alone")


def check_readiness(readiness: Readiness) -> Iterator[Finding]:
    """Yield the models that do not answer, or one line for all."""
    if readiness.fault:
        yield Finding("models", "failure", f"the server does not answer: {readiness.fault}", f"see {readiness.logs}")
        return
    unready = {model: state for model, state in readiness.models.items() if state != "READY"}
    for model, state in unready.items():
        status: Status = "warning" if state == "LOADING" else "failure"
        advice = (
            "wait" if state == "LOADING" else f"see {readiness.logs}/model_log.log; make supervise restarts workers"
        )
        yield Finding("models", status, f"{model} is {state}", advice)
    if not unready:
        yield Finding("models", "ok", f"READY: {', '.join(readiness.models)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
