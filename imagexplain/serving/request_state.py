"""One request on its way through a worker: the time of each stage, and its answer or failure.

A stage's output is handed on beside the request's state, as pairs of the two, so that each stage gets all that it
needs; requests that have failed are not among the pairs that come out.
"""

from __future__ import annotations

import http
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from imagexplain.api.request import JSON
from imagexplain.api.response import Encoded
from imagexplain.errors import RequestError
from imagexplain.serving.json_log import REQUESTS
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import ExplanationCount, Metrics, Stage
from imagexplain.serving.out_of_memory import is_out_of_memory, out_of_memory
from imagexplain.serving.rejection import reason

logger = logging.getLogger(__name__)

Before = TypeVar("Before")
After = TypeVar("After")


@dataclass
class RequestState:
    """The state of one request between its arrival and its answer.

    Attributes:
        raw: The request.
        method: Method of the explanation, once it is known.
        answer: The encoded result, once there is one.
        explained: Counted cost of its explanation.
        failure: The reason why there will be no answer.
        seconds: Time that each stage took.
        started: Clock reading at its arrival.
    """

    raw: RawRequest
    method: str | None = None
    answer: Encoded | None = None
    explained: ExplanationCount | None = None
    failure: RequestError | None = None
    seconds: dict[Stage, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time a stage, and turn whatever it raises into this request's failure."""
        started = time.perf_counter()
        try:
            yield
        except RequestError as error:
            self.refuse(error)
        except Exception as error:
            log_traceback(self.raw.id)
            if is_out_of_memory(error):
                self.failure = out_of_memory()
            else:
                self.failure = RequestError(500, "request", "the server failed on this request; its log says why")
        self.took(name, time.perf_counter() - started)

    def took(self, name: Stage, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[name] = self.seconds.get(name, 0) + seconds

    def refuse(self, refusal: RequestError) -> None:
        """Answer with a refusal.

        With a copy: a raised one holds its traceback, whose frames hold all that was computed, and these states, which
        hold it; nothing would be freed before the collector of cycles comes by.
        """
        self.failure = RequestError(refusal.status, refusal.field, refusal.message)

    def respond(self, metrics: Metrics) -> Response:
        """Count the request, write its line in the log, and give its response."""
        if self.failure is not None:
            self.explained = None
            status, outcome, answer = self.failure.status, self.failure.error, Encoded(self.failure.body(), JSON)
        elif self.answer is not None:
            status, outcome, answer = http.HTTPStatus.OK.value, "ok", self.answer
        else:
            raise RuntimeError("a request has neither answer nor failure")
        response = Response(status, answer.media_type, answer.body)
        seconds = time.perf_counter() - self.started + (self.raw.queued or 0)
        self._count(metrics, response, outcome, seconds)
        self._log(metrics, response, outcome, seconds)
        return response

    def _count(self, metrics: Metrics, response: Response, outcome: str, seconds: float) -> None:
        kind = self.raw.kind
        for stage, took in self.seconds.items():
            metrics.stage(stage, kind, took)
        if self.raw.queued is not None:
            metrics.waited(kind, self.raw.queued)
        metrics.request(kind, outcome, seconds, self.raw.bytes, len(response.body))
        if kind == "explanation":
            metrics.method(self.method, response.status)
        if self.failure is not None:
            metrics.rejected(self.failure)
        if self.explained is not None:
            metrics.explanation(self.explained)

    def _log(self, metrics: Metrics, response: Response, outcome: str, seconds: float) -> None:
        """Write the request's line, of what is counted and nothing that a client sent but an id of plain letters."""
        facts = {
            "request_id": self.raw.id,
            "model": metrics.model_name,
            "model_version": metrics.model_version,
            "kind": self.raw.kind,
            "status": response.status,
            "outcome": outcome,
            "reason": None if self.failure is None else reason(self.failure),
            "method": self.method,
            "seconds": seconds,
            "queue_seconds": self.raw.queued,
            **{f"{stage}_seconds": took for stage, took in self.seconds.items()},
            "request_bytes": self.raw.bytes,
            "response_bytes": len(response.body),
            "media_type": response.media_type,
            **({} if self.explained is None else asdict(self.explained)),
        }
        REQUESTS.info("request", extra={name: value for name, value in facts.items() if _is_told(value)})


def run_each(
    pairs: Sequence[tuple[RequestState, Before]], stage: Stage, work: Callable[[Before], After]
) -> list[tuple[RequestState, After]]:
    """Do the work of a stage for one request after the other; one that fails, fails alone."""
    found = []
    for state, before in pairs:
        with state.stage(stage):
            found.append((state, work(before)))
    return found


def run_batch_or_each(
    pairs: Sequence[tuple[RequestState, Before]], stage: Stage, work: Callable[[Sequence[Before]], Sequence[After]]
) -> list[tuple[RequestState, After]]:
    """Do the work for all at once; where that fails, for each alone, so that only the culprit fails."""
    if not pairs:
        return []
    states, started = [state for state, _ in pairs], time.perf_counter()
    try:
        found = list(zip(states, work([before for _, before in pairs]), strict=True))
    except RequestError as refusal:
        # The time is over for all; anything else may be due to one of them.
        if refusal.status == 503 or len(pairs) == 1:
            for state in states:
                state.refuse(refusal)
            return []
    except Exception:
        log_traceback()
    else:
        for state in {id(state): state for state in states}.values():  # which may want several scores explained
            state.took(stage, time.perf_counter() - started)
        return found
    # Out of the except clause, whose traceback would keep the failed pass's tensors alive.
    return run_each(pairs, stage, lambda before: work([before])[0])


def log_traceback(request_id: str | None = None) -> None:
    """Log the exception being handled. TorchServe takes lines that hold ``[METRICS]`` for measurements: none may.

    Args:
        request_id: Id of the request that failed; None for a batch, whose requests are then tried one by one.
    """
    logger.error("%s", traceback.format_exc().replace("[METRICS]", "[metrics]"), extra={"request_id": request_id})


def _is_told(value: object) -> bool:
    """Tell whether JSON has the value, and there is one."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
