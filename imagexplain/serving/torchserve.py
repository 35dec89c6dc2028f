"""TorchServe's side of a worker: its rows and context to requests and responses, its metrics to ours.

The only file that knows TorchServe. It wants a module with one class for each handler: those are in ``handlers/``.
"""

from __future__ import annotations

import http
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from ts.metrics.metric_type_enum import MetricTypes

from imagexplain.serving.allocator import keep_freed_memory, return_freed_memory
from imagexplain.serving.headers import headers_of, joined
from imagexplain.serving.json_log import write_json
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import MetricSink, MetricType
from imagexplain.serving.protocols import exchange, respond_all
from imagexplain.serving.request_id import ID_HEADER, START_HEADER, queue_seconds, request_id
from imagexplain.serving.request_loop import AnyLoop
from imagexplain.serving.runtime import device

L = TypeVar("L", bound=AnyLoop)


class TorchServeHandler(ABC, Generic[L]):
    """A handler of one kind of model, which a subclass loads.

    TorchServe creates one of these in each worker process, calls :meth:`initialize` once and :meth:`handle` for each
    batch, one at a time.
    """

    worker: L

    @abstractmethod
    def start(self, folder: Path, device: torch.device, sink: MetricSink) -> L:
        """The worker of an unpacked archive, which has answered nothing yet."""

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; what this raises is the reason a worker does not come up."""
        started = time.perf_counter()
        keep_freed_memory()
        properties = context.system_properties
        sink = TorchServeMetrics(context.metrics)
        self.worker = self.start(Path(properties["model_dir"]), device(properties), sink)
        return_freed_memory()
        self.worker.metrics.loaded(time.perf_counter() - started)
        self.worker.measure_memory()
        write_json()

    def handle(self, rows: Sequence[dict[str, Any]], context: Any) -> list[bytes]:
        """One body for each row, in order; its status and headers are set in the context."""
        requests = [raw_request(row, index, context) for index, row in enumerate(rows)]
        responses = self._answer(requests)
        for index, (request, response) in enumerate(zip(requests, responses, strict=True)):
            context.set_response_status(response.status, http.HTTPStatus(response.status).phrase, index)
            context.set_response_content_type(index, response.media_type)
            for name, value in headers_of(request, response).items():
                context.set_response_header(index, name, value)
        return [response.body for response in responses]

    def _answer(self, requests: Sequence[RawRequest]) -> list[Response]:
        """One response for each request, of whichever protocol."""
        spec = self.worker.task.spec
        exchanges = [exchange(request, spec) for request in requests]
        return respond_all(exchanges, self.worker)


def raw_request(row: dict[str, Any], index: int, context: Any) -> RawRequest:
    """The request in one row of a batch.

    TorchServe keeps the names of headers as they were sent, and puts the parts of a form among them, each with a table
    of its own headers in place of a value. A name in two spellings is a list (RFC 9110, 5.3). Which endpoint was called
    it says in a header that no client can set.
    """
    sent = context.get_all_request_header(index).items()
    headers = joined((name, value) for name, value in sent if isinstance(value, str))
    explains = context.get_request_header(index, "explain") == "True"
    return RawRequest(
        row,
        headers,
        "explanation" if explains else "prediction",
        request_id(headers.get(ID_HEADER), context.request_ids.get(index)),
        queue_seconds(headers.get(START_HEADER), time.time()),
    )


@dataclass(frozen=True)
class TorchServeMetrics:
    """TorchServe's `context.metrics` as a :class:`imagexplain.serving.metrics.MetricSink`."""

    store: Any

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        """Add to a counter, set a gauge, or observe a value for a histogram."""
        self.store.get_metric(name, MetricTypes(metric)).add_or_update(value, list(labels))
