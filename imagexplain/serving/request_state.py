"""One request on its way through a worker: the time of each stage, and its answer or failure.

A stage's output is handed on beside the request's state, as pairs of the two, so that each stage gets all that it
needs; requests that have failed are not among the pairs that come out.
"""

from __future__ import annotations

import http
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from imagexplain.api.request import JSON
from imagexplain.api.response import Encoded
from imagexplain.errors import RequestError
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import ExplanationCount, Metrics, Stage
from imagexplain.serving.out_of_memory import is_out_of_memory, out_of_memory

logger = logging.getLogger(__name__)

Before = TypeVar("Before")
After = TypeVar("After")


@dataclass
class RequestState:
    """The state of one request between its arrival and its answer.

    Attributes:
        raw: The request.
        answer: The encoded result, once there is one.
        explained: Counted cost of its explanation.
        failure: The reason why there will be no answer.
        seconds: Time that each stage took.
        started: Clock reading at its arrival.
    """

    raw: RawRequest
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
            log_traceback()
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
        """Count the request, and give its response."""
        if self.failure is not None:
            status, outcome, answer = self.failure.status, self.failure.error, Encoded(self.failure.body(), JSON)
        elif self.answer is not None:
            status, outcome, answer = http.HTTPStatus.OK.value, "ok", self.answer
        else:
            raise RuntimeError("a request has neither answer nor failure")
        kind = self.raw.kind
        for stage, seconds in self.seconds.items():
            metrics.stage(stage, kind, seconds)
        metrics.request(kind, outcome, time.perf_counter() - self.started, self.raw.bytes, len(answer.body))
        if self.failure is None and self.explained is not None:
            metrics.explanation(self.explained)
        return Response(status, answer.media_type, answer.body)


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
        for state in states:
            state.took(stage, time.perf_counter() - started)
        return found
    # Out of the except clause, whose traceback would keep the failed pass's tensors alive.
    return run_each(pairs, stage, lambda before: work([before])[0])


def log_traceback() -> None:
    """Log the exception being handled. TorchServe takes lines that hold ``[METRICS]`` for measurements: none may."""
    logger.error("%s", traceback.format_exc().replace("[METRICS]", "[metrics]"))
