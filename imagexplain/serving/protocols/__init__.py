"""Protocols of other services: each request of several instances becomes requests of this one, and the answers one.

The front door knows a protocol by its paths, and says which it is in the header :data:`PROTOCOL_HEADER`. A worker
answers the instances as it answers any batch, so that limits, metrics and outcomes are those of the service, one for
each instance; a protocol is words alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol as TypingProtocol
from typing import cast

from imagexplain.api.response import check_size
from imagexplain.archive.spec import ModelSpec
from imagexplain.errors import RequestError, unknown
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import Metrics
from imagexplain.serving.request_loop import AnyLoop
from imagexplain.serving.request_state import RequestState, log_traceback

PROTOCOL_HEADER = "x-explain-protocol"
"""Name of the header, in lower case."""

PROTOCOLS: Mapping[str, str] = {
    "kserve_v1": "kserve_v1",
    "kserve_v2": "kserve_v2",
    "kserve_v2_metadata": "kserve_v2_metadata",
    "vertex": "vertex",
}
"""Module of each protocol, in this package, by the name that the header has; imported once it is asked for."""

MAX_INSTANCES = 32
"""Number of instances of one request, at most."""


class Protocol(TypingProtocol):
    """A protocol: the functions of its module."""

    def split(self, raw: RawRequest, spec: ModelSpec) -> Sequence[RawRequest]:
        """Requests of this service, one for each instance, of a request in the protocol's words.

        Raises:
            RequestError: a request that is none of the protocol's, or asks for what has no counterpart here.
        """
        ...

    def join(
        self, raw: RawRequest, spec: ModelSpec, instances: Sequence[RawRequest], responses: Sequence[Response]
    ) -> Response:
        """The answer in the protocol's words, of the answers to the instances, in their order.

        Where one that failed fails the request, that is :func:`imagexplain.serving.protocols.instances.failed`.

        Raises:
            RequestError: there is no answer although all instances have theirs, such as one that is too large.
        """
        ...


@dataclass(frozen=True)
class Exchange:
    """A request as it came, and those that answer it.

    Attributes:
        raw: The request.
        requests: Requests of its instances, or itself where it is in this service's own words.
        protocol: The protocol that joins their answers; None where there is nothing to join.
        refusal: The reason why it has no answer, for one that is no request of the protocol's.
    """

    raw: RawRequest
    requests: tuple[RawRequest, ...]
    protocol: Protocol | None = None
    refusal: RequestError | None = None

    def answer(self, spec: ModelSpec, responses: Sequence[Response], metrics: Metrics) -> Response:
        """The answer to the request, of the answers to :attr:`requests`, which have been counted.

        One that is refused as a whole is counted here.
        """
        if self.refusal is not None:
            return refused(self.raw, self.refusal, metrics)
        if self.protocol is None:
            return responses[0]
        try:
            joined = self.protocol.join(self.raw, spec, self.requests, responses)
            check_size(len(joined.body), joined.media_type, spec.limits.max_response_bytes)
            return joined
        except RequestError as error:
            return refused(self.raw, error, metrics)
        except Exception:
            return refused(self.raw, _failure(self.raw), metrics)


def exchange(raw: RawRequest, spec: ModelSpec) -> Exchange:
    """Split a request into those that answer it."""
    name = raw.headers.get(PROTOCOL_HEADER)
    if name is None:
        return Exchange(raw, (raw,))
    try:
        if name not in PROTOCOLS:
            raise RequestError(400, PROTOCOL_HEADER, unknown("protocol", name, PROTOCOLS))
        protocol = cast(Protocol, import_module(f"{__name__}.{PROTOCOLS[name]}"))
        requests = tuple(protocol.split(raw, spec))
        if len(requests) > MAX_INSTANCES:
            raise RequestError(413, "instances", f"wanted at most {MAX_INSTANCES}, got {len(requests)}")
        return Exchange(raw, requests, protocol)
    except RequestError as error:
        return Exchange(raw, (), refusal=error)
    except Exception:
        return Exchange(raw, (), refusal=_failure(raw))


def respond_all(exchanges: Sequence[Exchange], worker: AnyLoop) -> list[Response]:
    """The answers to all exchanges of a batch, in order.

    No more requests than the model's batch has are answered at once, so that many instances hold no more photos than
    many requests; the first of each exchange go first, so that none waits for all of another's. They share a deadline.
    """
    spec = worker.task.spec
    order = sorted(
        (place, index) for index, exchange in enumerate(exchanges) for place in range(len(exchange.requests))
    )
    found: dict[tuple[int, int], Response] = {}
    size, deadline = max(spec.serving.batch_size, len(exchanges)), worker.deadline()
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        responses = worker.handle([exchanges[index].requests[place] for place, index in batch], deadline)
        found.update(zip(batch, responses, strict=True))
    return [
        exchange.answer(spec, [found[place, index] for place in range(len(exchange.requests))], worker.metrics)
        for index, exchange in enumerate(exchanges)
    ]


def refused(raw: RawRequest, error: RequestError, metrics: Metrics) -> Response:
    """The answer of an error in the service's own form; it is counted and logged as any request's."""
    state = RequestState(raw)
    state.refuse(error)
    return state.respond(metrics)


def _failure(raw: RawRequest) -> RequestError:
    log_traceback(raw.id)
    return RequestError(500, "request", "the server failed on this request; its log says why")


__all__ = [
    "MAX_INSTANCES",
    "PROTOCOLS",
    "PROTOCOL_HEADER",
    "Exchange",
    "Protocol",
    "exchange",
    "refused",
    "respond_all",
]
