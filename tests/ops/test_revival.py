"""Models that TorchServe has given up, and the pauses between attempts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from imagexplain.ops.backoff import CALM_SECONDS, LONGEST_SECONDS, Backoff
from imagexplain.ops.revival import MARGIN_SECONDS, Revivals, longest_pause
from tests.ops.seen import model, worker


@pytest.mark.parametrize(
    ("window", "pause"), [(0, 0), (1, 1), (2, 1), (3, 2), (88, 34), (89, 55), (232, 89), (300, 144)]
)
def test_the_longest_pause_is_the_last_that_begins_within_the_window(window: float, pause: float) -> None:
    """1 + 1 + 2 + 3 + 5 + 8 + 13 + 21 + 34 = 88 seconds of pauses come before the one of 55."""
    assert longest_pause(window) == pause


def test_a_model_is_given_up_once_no_pause_can_be_under_way() -> None:
    revivals, dead = Revivals(), model(worker(None), retry_s=1)
    assert revivals.due([dead], 10) == []
    assert revivals.due([dead], 10 + MARGIN_SECONDS) == []
    assert revivals.due([dead], 11 + MARGIN_SECONDS) == [dead]
    assert revivals.due([model(worker(1, loaded=False), retry_s=1)], 12 + MARGIN_SECONDS) == [], "it is being started"
    assert revivals.due([dead], 13 + MARGIN_SECONDS) == []


def test_a_model_that_has_a_worker_or_is_to_have_none_is_left_alone() -> None:
    revivals = Revivals()
    others = [
        model(worker(None), worker(2), wanted=2),
        model(wanted=0, name="scaled down"),
        model(worker(None, loaded=True), name="ready, TorchServe says"),
    ]
    assert [revivals.due(others, second) for second in (0, 1000)] == [[], []]


def test_attempts_come_less_often_while_they_fail() -> None:
    revivals, dead = Revivals(), model(worker(None), retry_s=0)
    attempts, pauses = [], []
    for second in range(2000):
        if revivals.due([dead], second):
            attempts.append(second)
            pauses.append(revivals.attempted(dead, second))
    assert attempts[0] == MARGIN_SECONDS
    assert pauses[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST_SECONDS]
    assert [later - earlier for earlier, later in pairwise(attempts)] == pauses[:-1]


def test_a_failure_after_a_calm_time_is_the_first_again() -> None:
    backoff = Backoff()
    for second in (0, 1, 3, 7):
        assert backoff.is_due(second)
        backoff.attempted(second)
    assert backoff.pause == 8 and not backoff.is_due(14)
    assert backoff.is_due(7 + CALM_SECONDS) and backoff.pause == 0
    for _ in range(5000):
        backoff.attempted(0)
    assert backoff.pause == LONGEST_SECONDS
