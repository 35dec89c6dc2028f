"""The course of a request by a clock of the test's own: what is tried again, when, and until when."""

from __future__ import annotations

import pytest

from imagexplain.client.errors import (
    AnswerError,
    ClientError,
    ConnectionLostError,
    InputError,
    NoAnswerError,
    StatusError,
    TimedOutError,
    UnreachableError,
)
from imagexplain.client.exchange import Pause, Reply, Retry, Send, exchange
from imagexplain.client.message import Answer, Request

REQUEST = Request("predictions/bit", {}, b"photo")
FINE = Reply(200, {"content-type": "application/json", "x-request-id": "one"}, b"{}")


def busy(status: int = 503, **headers: str) -> Reply:
    body = b'{"code": %d, "error": "busy", "field": "queue", "message": "full"}' % status
    return Reply(status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


class Played:
    """A course played to its end: the outcomes of the attempts in turn, of which each takes so many seconds."""

    def __init__(
        self,
        *outcomes: Reply | ClientError,
        retry: Retry | None = None,
        deadline_s: float | None = None,
        takes: float = 1,
    ) -> None:
        self.now, self.pauses, self.left, self.sent = 0.0, list[float](), list[float](), 0
        self.answer: Answer | None = None
        self.error: ClientError | None = None
        course = exchange(REQUEST, retry or Retry(), deadline_s, lambda: self.now, lambda: 0.5)
        step = next(course)
        try:
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = course.send(None)
                    continue
                assert isinstance(step, Send)
                self.left.append(step.left_s)
                self.now += 1
                self.sent += 1
                step = course.send(outcomes[min(self.sent, len(outcomes)) - 1])
        except StopIteration as done:
            self.answer = done.value
        except ClientError as error:
            self.error = error


def test_a_success_is_sent_once() -> None:
    played = Played(FINE)
    assert played.answer == Answer(b"{}", "application/json", 1.0, 1, "one") and played.pauses == []


@pytest.mark.parametrize(
    "failure",
    [
        *(busy(status) for status in (429, 502, 503, 507)),
        Reply(500, {}, b'{"code": 500, "type": "InternalServerException", "message": "Worker died."}'),
        UnreachableError("refused"),
        ConnectionLostError("reset"),
    ],
    ids=lambda failure: str(getattr(failure, "status", type(failure).__name__)),
)
def test_what_passes_is_tried_again(failure: Reply | ClientError) -> None:
    played = Played(failure, failure, FINE)
    assert played.answer and played.answer.attempts == 3
    assert played.pauses == [0.125, 0.25]  # half of 0.25 and of 0.5


@pytest.mark.parametrize(
    "failure",
    [
        *(busy(status) for status in (400, 401, 403, 404, 406, 413, 415, 422, 500, 501, 504)),
        TimedOutError("silent"),
        NoAnswerError("its certificate is not trusted"),
        InputError("no photo"),
        AnswerError("no JSON"),
    ],
    ids=lambda failure: str(getattr(failure, "status", type(failure).__name__)),
)
def test_what_does_not_pass_is_not(failure: Reply | ClientError) -> None:
    played = Played(failure, FINE)
    assert played.sent == 1 and played.error is not None and played.error.attempts == 1


def test_the_server_says_when_to_come_back() -> None:
    played = Played(busy(retry_after="7"), busy(429, retry_after="1"), FINE)
    assert played.pauses == [7.125, 1.25] and played.answer


def test_a_server_that_wants_to_be_left_alone_is_not_asked_again() -> None:
    played = Played(busy(retry_after="31"), FINE)
    assert played.sent == 1 and isinstance(played.error, StatusError) and played.error.retry_after == 31


def test_patience_ends() -> None:
    played = Played(busy(), retry=Retry(attempts=3))
    assert played.sent == 3 and played.error is not None
    assert str(played.error) == "predictions/bit: 503 queue: full (tried 3 times)"


def test_waits_grow_up_to_a_bound() -> None:
    played = Played(busy(), retry=Retry(attempts=6, first_s=4, longest_s=10))
    assert played.pauses == [2, 4, 5, 5, 5]


def test_the_deadline_holds_for_all_of_it() -> None:
    played = Played(busy(retry_after="4"), deadline_s=10)
    assert played.left == [10.0, 4.875] and played.pauses == [4.125] and played.sent == 2
    assert played.now <= 10


def test_waits_are_spread_over_all_of_their_range() -> None:
    """Full jitter: clients that failed together do not come back together."""
    waits = [Retry().wait(3, None, lambda drawn=drawn: drawn) for drawn in (0.0, 0.25, 0.999)]  # type: ignore[misc]
    assert waits == pytest.approx([0.0, 0.25, 0.999])
