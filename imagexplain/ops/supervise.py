"""A supervisor of one TorchServe: it starts the server, keeps it and its models answering, and ends it.

Why not a process manager: systemd, supervisord, circus and s6 watch a process that they started, and start it again
when it ends. TorchServe's command starts a Java process and ends; in the foreground it does not pass SIGTERM on, and
the Java process stays. That process lives on while every model is dead: TorchServe gives a model up whose workers could
not be started for some minutes, and its requests wait for ever; a stopped worker is noticed after the response time
limit; neither is seen from a process table. An end without losses needs a change of keys. So this supervisor does what
needs knowledge of TorchServe, by way of `imagexplain.ops.server`, and is itself an ordinary foreground process for a
process manager: it tells systemd when it is ready and that it is at work, ends on SIGTERM, and fails with a status.
`deploy/systemd` and `deploy/container` start it so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from imagexplain.ops import supervisor_state
from imagexplain.ops.backoff import Backoff
from imagexplain.ops.check_archive import ArchiveError, identify
from imagexplain.ops.exporter import EXPORTER_PORT, FRONTEND, MODEL, Status, exported
from imagexplain.ops.hanging import REASONS, STOPPED_SECONDS, Watch
from imagexplain.ops.key_renewal import expiring, renew
from imagexplain.ops.notify import notify
from imagexplain.ops.observation import LOADING, READY, UNAVAILABLE, observe
from imagexplain.ops.observation import Model as SeenModel
from imagexplain.ops.processes import end_all
from imagexplain.ops.revival import Revivals, revive
from imagexplain.ops.server import (
    DRAIN_SECONDS,
    SPARE_BYTES,
    Server,
    ServerError,
    addresses_of,
    alone,
    chosen_archives,
    find,
    ports_from,
    start,
    stop,
    wait_until_ready,
)
from imagexplain.ops.signals import ended_by_signals, undisturbed
from imagexplain.progress import say

LOOK_SECONDS = 1.0
SILENCE_SECONDS = 60.0
"""Time without an answer of the management API after which a living frontend is ended."""
KEYS_SECONDS = 600.0
"""Time from one look at the keys' expiration to the next."""


@dataclass(frozen=True)
class Settings:
    """Choice of what to serve, and where. The fields are those of `imagexplain.ops.server.start`."""

    root: Path
    store: Path
    run: Path
    host: str
    port: int | None = None
    models: tuple[str, ...] = ()
    replaceable: bool = False
    timeout_s: float = 600
    drain_s: float = DRAIN_SECONDS

    def start(self) -> Server:
        """Start the server, or find it running; returns once its process lives. Raises ServerError."""
        return start(
            self.root,
            self.store,
            self.run,
            host=self.host,
            port=self.port,
            models=self.models,
            replaceable=self.replaceable,
            drain_s=self.drain_s,
            wait=False,
        )


def supervise(settings: Settings, started: Callable[[Server], None] = lambda _: None) -> None:
    """Serve until a signal comes, then answer what was accepted, and end.

    A server that runs already with the same archives and addresses is taken over as it is.

    Args:
        settings: Choice of what to serve, and where.
        started: Function that is called once all models are READY.

    Raises:
        ServerError: the first start fails, or another supervisor works with the run directory.
        SystemExit: a signal has ended the supervision, and the server was stopped.
    """
    run = settings.run
    with ended_by_signals():  # until nothing is left to clean up: a second signal comes at any time of the end
        try:
            _become_supervisor(settings)
            status = Status()
            with exported(status, _exporter_port(settings)):
                supervision = _Supervision(settings, status, started)
                try:
                    supervision.go()
                finally:
                    status.draining = True
                    notify("STOPPING=1")
                    if supervision.began:
                        stop(run, drain_s=settings.drain_s)
        finally:
            with undisturbed():
                supervisor_state.forget(run, os.getpid())


def _become_supervisor(settings: Settings) -> None:
    run = settings.run
    try:
        run.mkdir(parents=True, exist_ok=True)
        with alone(run):
            other = supervisor_state.other_supervisor(run)
            if other:
                raise ServerError(f"the supervisor of {run} runs already, as process {other.pid}: make stop ends it")
            supervisor_state.write(run, _exporter_port(settings))
    except OSError as error:
        raise ServerError(f"the run directory {run} cannot be written: {error.strerror or error}") from None


def _exporter_port(settings: Settings) -> int:
    return ports_from(settings.root, settings.port)["inference"] + EXPORTER_PORT


@dataclass
class _Supervision:
    """The loop, and what it remembers from one look to the next."""

    settings: Settings
    status: Status
    started: Callable[[Server], None]
    began: bool = False
    told: bool = False
    watch: Watch = field(default_factory=Watch)
    revivals: Revivals = field(default_factory=Revivals)
    frontend: Backoff = field(default_factory=Backoff)
    seen: float = float("-inf")
    silence_ends: float = float("inf")
    suspended: float | None = None
    looked_at_keys: float = float("-inf")
    was_low: bool = False

    def go(self) -> None:
        self._expect()
        server = self._begin()
        self.began = True
        while True:
            # Whoever removes the state of a server that lives has not ended it.
            server = find(self.settings.run) or server
            if server.process() is None:
                server = self._restart(server)
            else:
                self._look(server)
            if not self.told and self.status.readiness()["ready"]:
                self.told = True
                self.started(server)
                notify("READY=1")
            notify("WATCHDOG=1")
            time.sleep(LOOK_SECONDS)

    def _begin(self) -> Server:
        """Start the server, whose first failure is the supervisor's, or take over the one that runs."""
        before = find(self.settings.run)
        server = self.settings.start()
        if before and (before.pid, before.started) == (server.pid, server.started):
            self.silence_ends = time.monotonic() + SILENCE_SECONDS
            return server

        def meanwhile() -> None:
            if time.monotonic() - self.seen >= LOOK_SECONDS:
                self._see(server)

        try:
            wait_until_ready(server, self.settings.timeout_s, meanwhile)
        except BaseException:
            with undisturbed():
                stop(self.settings.run, quiet=True, drain_s=0)
            raise
        return server

    def _expect(self) -> None:
        """Let readiness name the models before TorchServe does."""
        identities = []
        for path in chosen_archives(self.settings.store, self.settings.models):
            try:
                identities.append(identify(path))
            except ArchiveError:  # which the start tells
                continue
        for address, (name, version) in zip(addresses_of(identities), identities, strict=True):
            self.status.models += (SeenModel(address, name, version, (), 0, 0, 0.0),)
            self.status.states[address] = LOADING

    def _look(self, server: Server) -> None:
        now = time.monotonic()
        if self._is_suspended(server, now) or not self._see(server):
            self._end_if_silent(server, now)
            return
        self._end_hanging(now)
        self._revive(server, now)
        self._renew_keys(server, now)
        self._tell_room()

    def _see(self, server: Server) -> bool:
        """Observe the server, and tell the exporter; False if it does not answer."""
        self.seen = time.monotonic()
        try:
            models = observe(server)
        except (OSError, ValueError, LookupError, TypeError, ServerError):
            if self.silence_ends < float("inf"):  # it has answered before
                self._tell_down()
            return False
        self.silence_ends = self.seen + SILENCE_SECONDS
        for model in models:
            self._time_load(model)
        self.status.archives = server.archives
        self.status.models = models
        before, self.status.states = self.status.states, {model.address: model.state for model in models}
        self.status.frontend_up = True
        for address, state in self.status.states.items():
            if before.get(address, state) != state:
                say(f"{address}: {state}")
        for model in models:
            self.status.restarts[MODEL, model.name] += 0
            for reason in REASONS:
                self.status.ended[model.name, model.version, reason] += 0
        return True

    def _time_load(self, model: SeenModel) -> None:
        """Note how long a worker took that was not READY a look ago."""
        before = next((each for each in self.status.models if each.address == model.address), None)
        if model.state != READY or (before is not None and before.state == READY):
            return
        births = [each.process.create_time() for each in model.workers if each.state == READY and each.process]
        if births:
            self.status.load_s[model.name, model.version] = max(0.0, time.time() - max(births))

    def _tell_down(self) -> None:
        self.status.frontend_up = False
        self.status.states = dict.fromkeys(self.status.states, UNAVAILABLE)

    def _is_suspended(self, server: Server, now: float) -> bool:
        """Tell whether the frontend is stopped (SIGSTOP), and note since when."""
        process = server.process()
        try:
            stopped = process is not None and process.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            stopped = False
        self.suspended = (self.suspended or now) if stopped else None
        return stopped

    def _end_if_silent(self, server: Server, now: float) -> None:
        """End a frontend that lives but does not answer; the next look starts it anew."""
        process = server.process()
        if process is None:
            return
        if self.suspended is not None:
            self._tell_down()
            if now - self.suspended < STOPPED_SECONDS:
                return
        elif now < self.silence_ends:
            return
        say(f"TorchServe, process {process.pid}, {'is stopped' if self.suspended else 'does not answer'}: ending it")
        self.suspended = None
        try:
            end_all([process, *process.children(recursive=True)], patience_s=0)
        except psutil.Error as error:
            say(f"it could not be ended: {error}")

    def _restart(self, server: Server) -> Server:
        """Start a server anew that has ended, unless it is too early for that."""
        now = time.monotonic()
        self._tell_down()
        if not self.frontend.is_due(now):
            return server
        self.frontend.attempted(now)
        say(f"TorchServe, process {server.pid}, has ended; starting it anew (attempt {self.frontend.attempts})")
        self.status.restarts[FRONTEND, ""] += 1
        try:
            server = replace(self.settings, models=server.chosen).start()
        except ServerError as error:
            say(f"it could not be started: {error}\nnext attempt in {self.frontend.pause:.0f} s")
        self.silence_ends = time.monotonic() + self.settings.timeout_s
        return server

    def _end_hanging(self, now: float) -> None:
        for each in self.watch.look(self.status.models, now):
            process, model = each.worker.process, each.model
            if process is None:
                continue
            say(f"{model.address}: worker {each.worker.id}, process {process.pid}, is {each.reason}: ending it")
            self.status.ended[model.name, model.version, each.reason] += 1
            try:
                process.kill()
            except psutil.Error as error:
                say(f"{model.address}: it could not be ended: {error}")

    def _revive(self, server: Server, now: float) -> None:
        for model in self.revivals.due(self.status.models, now):
            pause = self.revivals.attempted(model, now)
            say(f"{model.address}: TorchServe has given its workers up; starting new ones (again after {pause:.0f} s)")
            self.status.restarts[MODEL, model.name] += 1
            try:
                revive(server, model)
            except (OSError, ServerError) as error:
                say(f"{model.address}: no new workers: {error}")

    def _renew_keys(self, server: Server, now: float) -> None:
        if now - self.looked_at_keys < KEYS_SECONDS:
            return
        self.looked_at_keys = now
        try:
            for kind in expiring(Path(server.run, "key_file.json"), datetime.now(UTC)):
                renew(server, kind)
                say(f"the {kind} key was about to expire: there is a new one in {server.run}/key_file.json")
        except (OSError, ValueError, ServerError) as error:
            say(f"the keys' expiration is not known, or they could not be renewed: {error}")

    def _tell_room(self) -> None:
        try:
            free = shutil.disk_usage(self.settings.run).free
        except OSError:
            return
        self.status.free_bytes = free
        low = free < SPARE_BYTES
        if low and not self.was_low:
            say(f"the run directory {self.settings.run} has {free:,} bytes left: logs will be lost when it is full")
        self.was_low = low
