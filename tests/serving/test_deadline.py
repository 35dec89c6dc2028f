import pytest

from handlers.deadline import Deadline, updated
from handlers.wire.errors import RequestError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_admits_until_the_budget_is_committed() -> None:
    deadline = Deadline.starting_now(10, 0.1, clock=Clock())  # room for 100 path points
    deadline = deadline.admit(60).admit(40)
    with pytest.raises(RequestError) as refused:
        deadline.admit(1)
    assert refused.value.status == 503


def test_refuses_what_no_batch_could_hold_and_states_the_limit() -> None:
    with pytest.raises(RequestError) as refused:
        Deadline.starting_now(10, 0.1, clock=Clock()).admit(101)
    assert (refused.value.status, refused.value.field) == (413, "steps")
    assert "at most 10 s, about 100 points" in refused.value.message
    assert "got 101 points" in refused.value.message


def test_time_that_has_passed_counts() -> None:
    clock = Clock()
    deadline = Deadline.starting_now(10, 0.1, clock=clock)
    clock.now += 5
    deadline.admit(50)
    with pytest.raises(RequestError):
        deadline.admit(51)


def test_gives_up_only_when_time_is_over() -> None:
    clock = Clock()
    deadline = Deadline.starting_now(10, 0.1, clock=clock)
    deadline.check(20)
    clock.now += 10.5
    with pytest.raises(RequestError, match="20 path points were left"):
        deadline.check(20)


def test_the_estimate_follows_the_measurements() -> None:
    estimate = 1.0
    for _ in range(30):
        estimate = updated(estimate, seconds=10, points=50)
    assert estimate == pytest.approx(0.2, rel=1e-3)


def test_a_default_request_alone_is_always_tried() -> None:
    """An estimate that was taken on a busy host must not lock everybody out: only a pass can correct it."""
    deadline = Deadline.starting_now(10, 5.0, trusted=52, clock=Clock())
    deadline = deadline.admit(52)
    with pytest.raises(RequestError):
        deadline.admit(2)
    with pytest.raises(RequestError):
        Deadline.starting_now(10, 5.0, trusted=52, clock=Clock()).admit(53)
