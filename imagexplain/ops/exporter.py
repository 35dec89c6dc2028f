"""Readiness and metrics of a supervised server, over HTTP on the loopback.

`/livez` tells that the supervisor lives, `/readyz` whether every model has a READY worker, `/metrics` both and more in
Prometheus' text. None of them asks the server: they answer from what the supervisor saw last, a second ago at most.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from imagexplain import __version__
from imagexplain.client.loopback import LOOPBACK
from imagexplain.ops.observation import READY, WORKER_STATES, Model
from imagexplain.ops.server import ServerError, owner_of

EXPORTER_PORT = 5
"""Distance of the exporter's port from the inference port."""
FRONTEND, MODEL = "frontend", "model"


@dataclass
class Status:
    """Facts that the exporter tells. The supervisor replaces its fields; each is read whole.

    Attributes:
        states: State of each model, by its address.
        models: Models as they were seen last; those that are expected, without workers, before the server answers.
        archives: SHA-256 of each model's archive, by its address.
        load_s: Seconds from the start of a model's worker until it was READY, by name and version.
        restarts: Restarts so far, by what was restarted and the model's name ("" for the frontend).
        ended: Workers that hung and were ended, by model's name, version and reason.
        free_bytes: Room in the state directory.
        draining: Flag for a server that is being stopped, and takes no more requests.
    """

    states: dict[str, str] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    archives: dict[str, str] = field(default_factory=dict)
    frontend_up: bool = False
    load_s: dict[tuple[str, str], float] = field(default_factory=dict)
    restarts: Counter[tuple[str, str]] = field(default_factory=lambda: Counter({(FRONTEND, ""): 0}))
    ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    free_bytes: int = 0
    draining: bool = False

    def readiness(self) -> dict[str, Any]:
        """The answer of `/readyz`."""
        states = dict(self.states)
        unready = sorted(address for address, state in states.items() if state != READY)
        return {"ready": bool(states) and not unready and not self.draining, "models": states, "unready": unready}


@dataclass(frozen=True, eq=False)
class _Metrics(Collector):
    status: Status

    def collect(self) -> Iterator[Metric]:
        status = self.status
        models = status.models
        identity = ["model_name", "model_version"]
        yield GaugeMetricFamily(
            "imagexplain_frontend_up", "1 while TorchServe answers, else 0", value=float(status.frontend_up)
        )
        ready = GaugeMetricFamily(
            "imagexplain_model_ready", "1 for a model with a READY worker, else 0", labels=identity
        )
        workers = GaugeMetricFamily(
            "imagexplain_workers", "Workers of a model, by their state", labels=[*identity, "state"]
        )
        build = GaugeMetricFamily(
            "imagexplain_build_info",
            "1, with the version of the package and the SHA-256 of the archive that is served",
            labels=["version", *identity, "archive_sha256"],
        )
        for model in models:
            known = [model.name, model.version]
            state = status.states.get(model.address)
            ready.add_metric(known, float(state == READY))
            counts = Counter(worker.state for worker in model.workers)
            for each in WORKER_STATES:
                workers.add_metric([*known, each], counts[each] if status.frontend_up else 0)
            build.add_metric([__version__, *known, status.archives.get(model.address, "")], 1)
        yield ready
        yield workers
        yield build
        load = GaugeMetricFamily(
            "imagexplain_model_load_seconds", "From the start of a worker until its model was READY", labels=identity
        )
        for (name, version), seconds in list(status.load_s.items()):
            load.add_metric([name, version], seconds)
        yield load
        restarts = CounterMetricFamily(
            "imagexplain_restarts",
            "Restarts of TorchServe, or of a model's workers",
            labels=["what", "model_name"],
        )
        for (what, name), count in list(status.restarts.items()):
            restarts.add_metric([what, name], count)
        yield restarts
        ended = CounterMetricFamily(
            "imagexplain_workers_ended", "Workers that hung and were ended", labels=[*identity, "reason"]
        )
        for key, count in list(status.ended.items()):
            ended.add_metric(list(key), count)
        yield ended
        yield GaugeMetricFamily("imagexplain_state_free_bytes", "Room in the state directory", value=status.free_bytes)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Listen without asking the network for this machine's name, which the base class does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def exported(status: Status, port: int) -> Iterator[None]:
    """Answer for `status` on a port of the loopback, until the end of the block.

    Raises:
        ServerError: the port is taken.
    """
    try:
        server = make_server(LOOPBACK, port, application(status), _Server, _Quiet)
    except OSError as error:
        taken = f"port {port} (readiness) cannot be opened{owner_of(port)}"
        raise ServerError(f"{taken}: {error.strerror}; choose others with PORT=") from None
    thread = threading.Thread(target=server.serve_forever, name="exporter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def application(status: Status) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """The WSGI application of the three addresses."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(status))
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _json(start_response, "405 Method Not Allowed", {"message": "wanted GET"}, ("Allow", "GET, HEAD"))
        if path == "/metrics":
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        if path == "/livez":
            return _json(start_response, "200 OK", {"live": True})
        if path == "/readyz":
            about = status.readiness()
            return _json(start_response, "200 OK" if about["ready"] else "503 Service Unavailable", about)
        return _json(start_response, "404 Not Found", {"message": "wanted /livez, /readyz or /metrics"})

    return answer


def _json(start_response: Callable[..., Any], line: str, value: object, *headers: tuple[str, str]) -> list[bytes]:
    body = json.dumps(value).encode() + b"\n"
    about = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(line, [*about, *headers])
    return [body]
