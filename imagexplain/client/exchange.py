"""The course of a request: what is tried again, when, and until when. No bytes are moved here.

Requests change nothing on the server, so that any of them may be sent again. That helps where nothing listened, where
the connection ended, where the server was busy (429, 503) or its worker ended (502, TorchServe's own 500 and 507). It
does not help where the request is at fault (4xx), nor where the time was over (504): the server would work for as long
once more.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from imagexplain.client.errors import (
    BusyError,
    ClientError,
    ConnectionLostError,
    StatusError,
    TimedOutError,
    TooManyRequestsError,
    UnreachableError,
    WorkerEndedError,
    status_error,
)
from imagexplain.client.message import Answer, Request

TRANSIENT = (UnreachableError, ConnectionLostError, TooManyRequestsError, BusyError, WorkerEndedError)
"""Errors after which the same request may succeed."""

REQUEST_IDS = ("x-correlation-id", "x-request-id")
"""Headers that have the id of a request: the server's own, and the front door's."""


@dataclass(frozen=True)
class Retry:
    """Patience of a client.

    The n-th wait is a random time of up to ``first_s`` times 2 to the power of n − 1, so that many clients do not come
    back together, and never longer than ``longest_s``; where the server says in ``Retry-After`` when to come back, that
    much more. A server that wants to be left alone for longer than ``longest_s`` is not asked again.

    Attributes:
        attempts: Number of times that a request is sent, at most; 1 for no retries.
        first_s: Upper bound of the first wait, seconds.
        longest_s: Longest wait, seconds.

    Example:
        >>> from imagexplain.client.exchange import Retry
        >>> [Retry().wait(failed, None, lambda: 1.0) for failed in (1, 2, 3, 4, 5)]
        [0.25, 0.5, 1.0, 2.0, None]
        >>> Retry().wait(1, 7.0, lambda: 0.0), Retry().wait(1, 3600.0, lambda: 0.0)
        (7.0, None)
    """

    attempts: int = 5
    first_s: float = 0.25
    longest_s: float = 30.0

    def wait(self, failed: int, retry_after: float | None, jitter: Callable[[], float]) -> float | None:
        """Seconds to wait after so many failed attempts; None to give up.

        Args:
            failed: Number of attempts that failed.
            retry_after: Seconds that the server asked for, None for none.
            jitter: Source of random numbers in [0, 1).
        """
        if failed >= self.attempts or (retry_after or 0) > self.longest_s:
            return None
        spread = jitter() * min(self.longest_s, self.first_s * 2.0 ** (failed - 1))
        return min(self.longest_s, (retry_after or 0) + spread)


@dataclass(frozen=True)
class Send:
    """An attempt to be made; it ends as a Reply, or as the error that kept it from one.

    Attributes:
        left_s: Seconds that the attempt may take; infinite without a deadline.
    """

    left_s: float


@dataclass(frozen=True)
class Pause:
    """A wait before the next attempt."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """A whole answer of any status, its headers by name in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""


Course = Generator[Send | Pause, Reply | ClientError | None, Answer]


def exchange(
    request: Request,
    retry: Retry,
    deadline_s: float | None,
    clock: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = random.random,
) -> Course:
    """The steps of a request: each Send is to be answered with what became of it, each Pause with None.

    Args:
        request: Request to send.
        retry: Patience.
        deadline_s: Seconds for all attempts and waits together; None for any.
        clock: Clock in seconds.
        jitter: Source of random numbers in [0, 1).

    Returns:
        The answer.

    Raises:
        ClientError: the last attempt's error, once no more are to be made.
    """
    ends = math.inf if deadline_s is None else clock() + deadline_s
    attempts = 0
    while True:
        began = clock()
        outcome = yield Send(ends - began)
        attempts += 1
        if isinstance(outcome, Reply):
            if 200 <= outcome.status < 300:
                media = outcome.headers.get("content-type", "")
                return Answer(outcome.body, media, clock() - began, attempts, request_id(outcome.headers))
            outcome = _error_of(request.path, outcome)
        assert outcome is not None
        outcome.attempts = attempts
        wait = None
        if isinstance(outcome, TRANSIENT):
            wanted = outcome.retry_after if isinstance(outcome, StatusError) else None
            wait = retry.wait(attempts, wanted, jitter)
        if wait is None or clock() + wait >= ends:
            raise outcome
        yield Pause(wait)


def seconds_of(retry_after: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a header ``Retry-After`` says, as a number or a date; None where it is neither.

    Example:
        >>> from datetime import UTC, datetime
        >>> from imagexplain.client.exchange import seconds_of
        >>> seconds_of("7"), seconds_of("soon")
        (7.0, None)
        >>> seconds_of("Thu, 01 Jan 2026 00:00:30 GMT", datetime(2026, 1, 1, tzinfo=UTC))
        30.0
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def request_id(headers: dict[str, str]) -> str:
    """The id by which the server's log knows a request."""
    return next((headers[name] for name in REQUEST_IDS if headers.get(name)), "")


def out_of_time(request: Request, seconds: float | None = None) -> TimedOutError:
    """The error of an attempt whose time was over."""
    within = "" if seconds is None else f" within {seconds:.3g} s"
    return TimedOutError(f"{request.path}: no answer{within}")


def _error_of(path: str, reply: Reply) -> StatusError:
    after = seconds_of(reply.headers.get("retry-after"))
    return status_error(path, reply.status, reply.body, reply.reason, request_id(reply.headers), after)
