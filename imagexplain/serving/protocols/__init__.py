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

from imagexplain.api.request import JSON
from imagexplain.archive.spec import ModelSpec
from imagexplain.errors import RequestError, unknown
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.request_state import log_traceback

PROTOCOL_HEADER = "x-explain-protocol"
"""Name of the header, in lower case."""

PROTOCOLS: Mapping[str, str] = {"vertex": "vertex"}
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
        """The answer in the protocol's words, of the answers to the instances, in their order."""
        ...


@dataclass(frozen=True)
class Exchange:
    """A request as it came, and those that answer it.

    Attributes:
        raw: The request.
        requests: Requests of its instances, or itself where it is in this service's own words.
        protocol: The protocol that joins their answers; None where there is nothing to join.
        refusal: The answer to one that is no request of the protocol's.
    """

    raw: RawRequest
    requests: tuple[RawRequest, ...]
    protocol: Protocol | None = None
    refusal: Response | None = None

    def answer(self, spec: ModelSpec, responses: Sequence[Response]) -> Response:
        """The answer to the request, of the answers to :attr:`requests`."""
        if self.refusal is not None:
            return self.refusal
        if self.protocol is None:
            return responses[0]
        try:
            return self.protocol.join(self.raw, spec, self.requests, responses)
        except RequestError as error:
            return refused(error)
        except Exception:
            return _failed(self.raw)


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
        return Exchange(raw, (), refusal=refused(error))
    except Exception:
        return Exchange(raw, (), refusal=_failed(raw))


def refused(error: RequestError) -> Response:
    """The answer of an error, in the service's own form."""
    return Response(error.status, JSON, error.body())


def _failed(raw: RawRequest) -> Response:
    log_traceback(raw.id)
    return refused(RequestError(500, "request", "the server failed on this request; its log says why"))


__all__ = ["MAX_INSTANCES", "PROTOCOLS", "PROTOCOL_HEADER", "Exchange", "Protocol", "exchange", "refused"]
