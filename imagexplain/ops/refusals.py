"""Errors and headers of what stands between clients and TorchServe: the front door, or the studio's own server."""

from __future__ import annotations

import json
from dataclasses import dataclass

CONTENT_SECURITY_POLICY = "; ".join(
    (
        *("default-src 'self'", "img-src 'self' blob:", "object-src 'none'", "base-uri 'none'"),
        *("form-action 'none'", "frame-ancestors 'none'"),
    )
)
MAX_BODY_BYTES = 33_000_000
"""Bytes of a request that TorchServe still answers in words."""
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Pattern of a model's name."""
MODEL = rf"{NAME}(/[0-9]+(\.[0-9]+)*)?"
"""Pattern of a model's name, and of its version where one is asked for."""


@dataclass(frozen=True)
class Refusal:
    """An error that the front door itself answers with.

    Attributes:
        status: HTTP status.
        error: Status as a short word for machines.
        field: Part of the request at fault.
        message: Words that say what was wanted.
        code: Status in nginx's own counting, where that differs.
    """

    status: int
    error: str
    field: str
    message: str
    code: int | None = None

    @property
    def caught(self) -> int:
        """The status by which nginx knows it."""
        return self.code or self.status

    @property
    def body(self) -> str:
        """JSON of the service's form."""
        return json.dumps({"code": self.status, "error": self.error, "field": self.field, "message": self.message})


def by_status(max_body_bytes: int) -> list[Refusal]:
    """The errors by status, where a request may have so many bytes."""
    later = "come back after the seconds of Retry-After"
    return [
        Refusal(400, "bad_request", "request", "wanted an HTTP request with a path, a host and headers of its form"),
        Refusal(401, "unauthorized", "authorization", "wanted the header Authorization: Bearer KEY, with a key in use"),
        Refusal(403, "forbidden", "address", "this address, or a page of this origin, may not ask for that"),
        Refusal(404, "not_found", "path", "wanted /predictions/MODEL or /explanations/MODEL of a served model"),
        Refusal(405, "method_not_allowed", "method", "wanted one of the methods in the header Allow"),
        Refusal(406, "not_acceptable", "accept", "wanted another form of answer"),
        Refusal(411, "length_required", "content-length", "wanted the length of the body, or chunks"),
        Refusal(412, "precondition_failed", "if-match", "the file is another one"),
        Refusal(413, "too_large", "body", f"wanted at most {max_body_bytes:,} bytes"),
        Refusal(414, "uri_too_long", "path", "wanted at most 6,000 characters: send the options in the body"),
        Refusal(415, "unsupported_media", "image", "wanted another form of image"),
        Refusal(416, "range_not_satisfiable", "range", "wanted a range within the file"),
        Refusal(422, "unprocessable", "request", "the model cannot do that"),
        Refusal(429, "too_many_requests", "client", f"too many requests or connections at once: {later}"),
        Refusal(431, "headers_too_large", "headers", "wanted at most 6,000 bytes: send options in the body", 494),
        Refusal(400, "bad_request", "scheme", "wanted https, got http", 497),
        Refusal(500, "internal", "edge", "the front door failed; its log says why"),
        Refusal(501, "not_implemented", "transfer-encoding", "wanted the encoding chunked, or none"),
        Refusal(502, "bad_gateway", "server", f"the server, or its worker, ended before it had answered: {later}"),
        Refusal(503, "busy", "server", f"the server is busy, or not ready: {later}"),
        Refusal(504, "timeout", "server", f"the server did not answer in time: {later}"),
        Refusal(505, "version_not_supported", "request", "wanted HTTP/1.1 or HTTP/2"),
    ]


TORCHSERVE_STATUSES = {400: 503, 500: 502}
"""Statuses of TorchServe's own errors that become others: a 400 is a key that has just been changed, and a 500 a worker
that ended. 507 becomes 503, and what is not among `refusals` 502."""

RAY_STATUSES = {
    404: {"$ray_status = 404": 503},
    500: {"$ray_status = 500": 502},
    502: {"$unreached": 503},
    504: {"$unreached": 503},
}
"""The same of Ray Serve, by nginx's condition: a 404 is an application that no node has yet, a 500 a replica that
ended, and where no connection was made, no node answers."""

RAY_LOST_STATUSES = (404, 500, 502, 504)
"""Statuses with which a first attempt at a node may be lost: `deploy/nginx/ray.conf.j2` says when."""

NAMED_REFUSALS = {
    "options-twice": Refusal(
        400, "bad_request", "options", "wanted options in the address or in X-Explain-Options, got both"
    ),
    "foreign-origin": Refusal(403, "forbidden", "origin", "pages of this origin may not ask"),
}
"""Errors with words of their own, beside those of their status."""
