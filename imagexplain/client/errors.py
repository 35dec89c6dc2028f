"""Errors of a client, as a tree: whoever catches :class:`ClientError` catches them all.

ClientError
├── NoServerError               no server runs on this machine
├── InputError                  a photo or an option that cannot be sent
├── NoAnswerError               none has come
│   ├── UnreachableError        nothing listens there
│   ├── ConnectionLostError     the connection ended before the answer had come
│   └── TimedOutError           the time was over
├── AnswerError                 an answer that cannot be read
└── StatusError                 an answer that is no success
    ├── RefusedError            4xx: the request's fault
    │   ├── BadRequestError         400
    │   ├── UnauthorizedError       401 and 403, and a missing key
    │   ├── UnknownModelError       404
    │   ├── TooLargeError           413
    │   ├── UnknownFormatError      415
    │   ├── ImpossibleError         422
    │   └── TooManyRequestsError    429
    └── ServerFaultError        5xx: the server's
        ├── WorkerEndedError        502, and TorchServe's own 500 and 507
        ├── BusyError               503
        └── OutOfTimeError          504
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 200
"""Characters of an error's body that are shown where it is no JSON."""


class ClientError(RuntimeError):
    """A missing server, or an answer that is not a success; the message says which, in the server's words.

    Attributes:
        attempts: Number of times that the request was sent.
    """

    attempts: int = 0

    def __str__(self) -> str:
        told = super().__str__()
        return f"{told} (tried {self.attempts} times)" if self.attempts > 1 else told


class NoServerError(ClientError):
    """No server runs on this machine."""


class InputError(ClientError):
    """A photo or an option that cannot be sent."""


class NoAnswerError(ClientError):
    """No answer has come."""


class UnreachableError(NoAnswerError):
    """Nothing listens at the address."""


class ConnectionLostError(NoAnswerError):
    """The connection ended before the answer had come."""


class TimedOutError(NoAnswerError):
    """No answer within the time."""


class AnswerError(ClientError):
    """An answer that cannot be read."""


class StatusError(ClientError):
    """An answer that is no success.

    Attributes:
        status: Status of HTTP.
        error: Status as a short word of the service's, or TorchServe's own word.
        field: Part of the request at fault; empty where the answer does not say it.
        message: Words of the server.
        request_id: Id by which the server's log knows the request; empty where it has none.
        retry_after: Seconds after which the server wants to be asked again; None where it does not say.
    """

    def __init__(
        self,
        path: str,
        status: int,
        message: str,
        *,
        error: str = "",
        field: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{path}: {status} {f'{field}: ' if field else ''}{message}")
        self.status = status
        self.error = error
        self.field = field
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after


class RefusedError(StatusError):
    """A request at fault: to send it again is of no use."""


class BadRequestError(RefusedError):
    """A malformed request."""


class UnauthorizedError(RefusedError):
    """No key, one that is not in use, or no permission."""


class UnknownModelError(RefusedError):
    """No such model, or no such path."""


class TooLargeError(RefusedError):
    """More than the server takes: bytes, pixels, steps, groups, time."""


class UnknownFormatError(RefusedError):
    """A photo of an unknown format."""


class ImpossibleError(RefusedError):
    """A request that this model cannot answer."""


class TooManyRequestsError(RefusedError):
    """More requests than the client may send, and the patience for another attempt was over."""


class ServerFaultError(StatusError):
    """A server at fault."""


class WorkerEndedError(ServerFaultError):
    """The server or its worker ended before it had answered."""


class BusyError(ServerFaultError):
    """A server that is busy, being started or stopped, or a segmenter that does not answer."""


class OutOfTimeError(ServerFaultError):
    """The server had no answer in its time."""


KINDS: Mapping[int, type[StatusError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: UnknownModelError,
    413: TooLargeError,
    415: UnknownFormatError,
    422: ImpossibleError,
    429: TooManyRequestsError,
    502: WorkerEndedError,
    503: BusyError,
    504: OutOfTimeError,
    507: WorkerEndedError,
}
"""Errors by status; those of no other name are refusals below 500, and the server's faults from there."""

INVALID_KEY = ("InvalidKeyException", "TokenAuthorizationException")
"""TorchServe's own words for a key that is missing or wrong, which it answers with a status of 400."""


def status_error(
    path: str, status: int, body: bytes, reason: str = "", request_id: str = "", retry_after: float | None = None
) -> StatusError:
    """The error that an answer of no success says.

    Example:
        >>> from imagexplain.client.errors import status_error
        >>> body = b'{"code": 422, "error": "unprocessable", "field": "target_class", "message": "wanted a label"}'
        >>> status_error("predictions/bit", 422, body)
        ImpossibleError('predictions/bit: 422 target_class: wanted a label')
    """
    told = _told(body)
    kind = KINDS.get(status) or (RefusedError if status < 500 else ServerFaultError)
    word, field = str(told.get("error", told.get("type", ""))), str(told.get("field", ""))
    if word in INVALID_KEY:
        kind = UnauthorizedError
    elif status == 500 and "type" in told:
        kind = WorkerEndedError
    text = body[: 4 * MAX_TEXT].decode("utf-8", "replace")[:MAX_TEXT].strip()
    message = str(told.get("message") or text or reason or "(empty answer: larger than the server takes?)")
    return kind(path, status, message, error=word, field=field, request_id=request_id, retry_after=retry_after)


def _told(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
