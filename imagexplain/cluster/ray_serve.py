"""The archives as applications of Ray Serve: the worker that TorchServe's handlers have, behind Ray's proxies.

Each archive is an application of its own, with the route ``/NAME``, so that one is rolled out, scaled and lost without
the others: ``/NAME/predictions`` and ``/NAME/explanations`` are what ``/predictions/NAME`` and ``/explanations/NAME``
are elsewhere. Ray has no keys and no limits of its own: a proxy that has them stands before it.

No ``from __future__ import annotations`` here: Ray reads an application's ``args`` as :class:`Settings` only where the
annotation is the class itself, not its name.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import Response as HttpResponse

from imagexplain.cluster.archive import load
from imagexplain.cluster.handle_segments import HandleSegments, segments_of
from imagexplain.cluster.http import http_response, raw_request
from imagexplain.cluster.metrics import MetricsServer, MetricsSettings, ScrapedMetrics, declarations
from imagexplain.errors import RequestError
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import NoMetrics
from imagexplain.serving.protocols import exchange, refused, respond_all
from imagexplain.serving.worker import Worker


class Settings(BaseModel):
    """Settings of an application, the ``args`` of a Serve config.

    Attributes:
        archive: Path of the archive, on every node.
        segmenters: Names of the applications of segmenters that its requests may ask for segments.
        metrics: Settings of its metrics; None for an application that nobody watches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    archive: Path
    segmenters: tuple[str, ...] = ()
    metrics: MetricsSettings | None = None


@serve.deployment
class ServedArchive:
    """A replica: one archive's model, which answers a batch at a time."""

    def __init__(self, settings: Settings) -> None:
        started = time.perf_counter()
        self.metrics_server: MetricsServer | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="imagexplain-")
        watched = settings.metrics
        sink = NoMetrics() if watched is None else ScrapedMetrics(declarations(watched.table))
        self.worker = load(settings.archive, Path(self.folder.name), sink)
        spec = self.worker.task.spec
        if isinstance(self.worker, Worker):
            before = self.worker.remote_segments
            known = () if spec.handler == "segmenter" else settings.segmenters
            self.worker.remote_segments = HandleSegments(
                before.own,
                before.archive,
                before.limits,
                before.budget,
                before.count,
                transport=segments_of,
                segmenters=known,
            )
        respond: Any = self.respond  # which serve.batch has given these
        respond.set_max_batch_size(spec.serving.batch_size)
        respond.set_batch_wait_timeout_s(spec.serving.batch_delay_ms / 1000)
        self.worker.metrics.loaded(time.perf_counter() - started)
        self.worker.measure_memory()
        if watched is not None and isinstance(sink, ScrapedMetrics):
            self.metrics_server = MetricsServer(watched, sink)

    def __del__(self) -> None:
        """Ray's call to a replica that is shut down, not to one that is killed."""
        if self.metrics_server is not None:
            self.metrics_server.close()
            self.metrics_server = None

    async def __call__(self, request: Request) -> HttpResponse:
        """The answer to a request over HTTP."""
        try:
            raw = await raw_request(request)
        except RequestError as error:
            raw = RawRequest({}, dict(request.headers), "prediction")
            return http_response(raw, refused(raw, error, self.worker.metrics))
        return http_response(raw, await self.respond(raw))

    async def answer(self, raw: RawRequest) -> Response:
        """The answer to a request of another deployment."""
        response: Response = await self.respond(raw)
        return response

    @serve.batch
    async def respond(self, requests: list[RawRequest]) -> list[Response]:
        """One response for each request of a batch, in order; the event loop goes on meanwhile."""
        return await asyncio.to_thread(self._respond, requests)

    def _respond(self, requests: Sequence[RawRequest]) -> list[Response]:
        spec = self.worker.task.spec
        return respond_all([exchange(request, spec) for request in requests], self.worker)


def application(settings: Settings) -> Application:
    """The application of an archive, as a Serve config names it: ``imagexplain.cluster.ray_serve:application``."""
    deployment: Any = ServedArchive
    app: Application = deployment.bind(settings)
    return app
