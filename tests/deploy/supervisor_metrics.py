"""A stand-in for the supervisor's metrics: its names and labels, and values of a test's choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from tests.deploy.prometheus_server import free_port


@contextmanager
def supervisor_metrics(*models: str) -> Iterator[tuple[str, Counter]]:
    """The address of its metrics, of models that are ready, and the counter of restarts."""
    registry = CollectorRegistry()

    def gauge(name: str, *labels: str) -> Gauge:
        return Gauge(f"imagexplain_{name}", name, labels, registry=registry)

    gauge("frontend_up").set(1)
    gauge("state_free_bytes").set(5e9)
    ready = gauge("model_ready", "model_name", "model_version")
    workers = gauge("workers", "model_name", "model_version", "state")
    load = gauge("model_load_seconds", "model_name", "model_version")
    build = gauge("build_info", "version", "model_name", "model_version", "archive_sha256")
    restarts = Counter("imagexplain_restarts", "restarts", ("what", "model_name"), registry=registry)
    for model in models:
        ready.labels(model, "1.0").set(1)
        workers.labels(model, "1.0", "READY").set(1)
        load.labels(model, "1.0").set(2.5)
        build.labels("0.1", model, "1.0", "ab" * 32).set(1)
        restarts.labels("model", model)
    port = free_port()
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{port}", restarts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
