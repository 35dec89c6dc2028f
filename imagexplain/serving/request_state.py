"""One request of a batch and its answer: what is known of it so far, how long each stage took, and what went wrong."""

from __future__ import annotations

import http
import logging
import time
import traceback
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from imagexplain.api.request import JSON, Request
from imagexplain.api.response import Encoded
from imagexplain.errors import RequestError
from imagexplain.serving.method_attribution import Map
from imagexplain.serving.metrics import Kind, Metrics, Stage
from imagexplain.serving.path_attribution import Explanation
from imagexplain.serving.prepared_request import Sample

logger = logging.getLogger(__name__)


@dataclass
class Exchange:
    """The state of one request between its arrival and its answer.

    Attributes:
        index: its place in the batch.
        row: its body as TorchServe hands it over.
        context: TorchServe's context of the batch.
        request: the request as parsed, once it is.
        sample: the same in the model's frame.
        scores: (classes,) pre-softmax scores, once they are known.
        target: class index to explain, once it is resolved.
        key: what the explanation is remembered by, once that is known.
        explanation: the path integrals or the map, once they are computed.
        cached: whether they were at hand.
        answer: the encoded result, once there is one.
        failure: why there will be none.
        seconds: what each stage took.
    """

    index: int
    row: dict[str, Any]
    context: Any
    request: Request | None = None
    sample: Sample | None = None
    scores: Tensor | None = None
    target: int | None = None
    key: Hashable = None
    explanation: Explanation | Map | None = None
    cached: bool = False
    answer: Encoded | None = None
    failure: RequestError | None = None
    seconds: dict[Stage, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers, names in lower case; TorchServe keeps them as they were sent.

        It also puts the parts of a form among them, each with a table of its own headers in place of a value. A name in
        two spellings is a list (RFC 9110, 5.3).
        """
        headers: dict[str, str] = {}
        for sent, value in self.context.get_all_request_header(self.index).items():
            if isinstance(value, str):
                name = sent.lower()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    @property
    def kind(self) -> Kind:
        """Which endpoint was called; TorchServe itself says so in a header that no client can set."""
        return "explanation" if self.context.get_request_header(self.index, "explain") == "True" else "prediction"

    @property
    def fresh(self) -> bool:
        """Whether the client wants nothing that is remembered from earlier requests (RFC 9111, 5.2.1.4)."""
        return "no-cache" in self.headers.get("cache-control", "").lower()

    @property
    def pending(self) -> bool:
        """Whether an answer is still to be made."""
        return self.failure is None

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time a stage, and turn whatever it raises into this request's failure."""
        started = time.perf_counter()
        try:
            yield
        except RequestError as error:
            self.refuse(error)
        except Exception:
            log_traceback()
            self.failure = RequestError(500, "request", "the server failed on this request; its log says why")
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - started

    def refuse(self, refusal: RequestError) -> None:
        """Answer with a refusal.

        With a copy: a raised one holds its traceback, whose frames hold all that was computed, and these exchanges,
        which hold it; nothing would be freed before the collector of cycles comes by.
        """
        self.failure = RequestError(refusal.status, refusal.field, refusal.message)

    def close(self, metrics: Metrics) -> bytes:
        """Set status and headers, count the request, and return the body."""
        if self.failure is not None:
            status, outcome = self.failure.status, self.failure.error
            answer = Encoded(self.failure.body(), JSON)
        elif self.answer is not None:
            status, outcome, answer = 200, "ok", self.answer
        else:
            raise RuntimeError(f"request {self.index} has neither answer nor failure")
        self.context.set_response_status(status, http.HTTPStatus(status).phrase, self.index)
        self.context.set_response_content_type(self.index, answer.media_type)
        for stage, seconds in self.seconds.items():
            metrics.stage(stage, self.kind, seconds)
        metrics.request(self.kind, outcome, time.perf_counter() - self.started, self._request_bytes(), len(answer.body))
        if self.failure is None and self.explanation is not None and self.sample is not None:
            groups, found = self.sample.groups, self.explanation
            metrics.explanation(
                evaluations=0 if self.cached else found.evaluations,
                relative_residual=found.relative_residual(groups) if isinstance(found, Explanation) else None,
                groups=0 if groups is None else len(groups.family),
                cached=self.cached,
            )
        return answer.body

    def _request_bytes(self) -> int:
        return sum(len(value) for value in self.row.values() if isinstance(value, bytes | bytearray | str))


def asking(exchanges: Iterable[Exchange]) -> list[tuple[Request, bool]]:
    """The requests that have been parsed, each with whether its client wants nothing that is remembered."""
    return [(exchange.request, exchange.fresh) for exchange in exchanges if exchange.request is not None]


def log_traceback() -> None:
    """Log the exception being handled. TorchServe takes lines that hold ``[METRICS]`` for measurements: none may."""
    logger.error("%s", traceback.format_exc().replace("[METRICS]", "[metrics]"))
