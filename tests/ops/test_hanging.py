"""Workers that hang, and those that only seem to."""

from __future__ import annotations

import psutil
import pytest

from imagexplain.ops.hanging import STALLED_SECONDS, STOPPED_SECONDS, Watch
from tests.ops.seen import model, worker


def reasons(watch: Watch, now: float, **about: object) -> list[str]:
    pending = int(about.pop("pending", 0))  # type: ignore[call-overload]
    return [each.reason for each in watch.look([model(worker(**about), pending=pending)], now)]  # type: ignore[arg-type]


def test_a_stopped_worker_hangs_after_some_seconds_whether_requests_wait_or_not() -> None:
    watch = Watch()
    assert reasons(watch, 0, status=psutil.STATUS_STOPPED) == []
    assert reasons(watch, STOPPED_SECONDS - 0.1, status=psutil.STATUS_STOPPED) == []
    assert reasons(watch, STOPPED_SECONDS, status=psutil.STATUS_STOPPED) == ["stopped"]


def test_one_that_goes_on_in_between_does_not() -> None:
    watch = Watch()
    for second in range(10):
        status = psutil.STATUS_SLEEPING if second % 3 == 2 else psutil.STATUS_STOPPED
        assert reasons(watch, second, status=status) == []


def test_a_worker_without_a_tick_while_requests_wait_is_stalled() -> None:
    watch = Watch()
    assert reasons(watch, 0, pending=1) == []
    assert reasons(watch, STALLED_SECONDS - 1, pending=2) == []
    assert reasons(watch, STALLED_SECONDS, pending=1) == ["stalled"]


@pytest.mark.parametrize(
    "about",
    [
        {"pending": 0},
        {"pending": 1, "asks": True},
        {"pending": 1, "loaded": False},
        {"pending": 1, "status": psutil.STATUS_RUNNING},
        {"pending": 1, "status": psutil.STATUS_DISK_SLEEP},
        {"pending": 1, "status": psutil.STATUS_TRACING_STOP},
    ],
    ids=["idle", "asks a segmenter", "loads", "runs", "reads", "in a debugger"],
)
def test_a_long_rest_is_no_alarm(about: dict[str, object]) -> None:
    watch = Watch()
    assert [reasons(watch, second, **about) for second in range(0, 300, 5)] == [[]] * 60


def test_a_long_explanation_is_no_alarm() -> None:
    """It takes processor time, even if it is seen asleep at each look, as when it waits for a thread of its own."""
    watch = Watch()
    for second in range(300):
        assert reasons(watch, second, pending=3, cpu_s=second * 0.01) == []
    assert reasons(watch, 299 + STALLED_SECONDS, pending=3, cpu_s=2.99) == ["stalled"]


def test_a_new_worker_is_given_its_own_time() -> None:
    watch = Watch()
    assert reasons(watch, 0, pid=1, status=psutil.STATUS_STOPPED) == []
    assert reasons(watch, STOPPED_SECONDS, pid=2, status=psutil.STATUS_STOPPED) == []
    assert reasons(watch, STOPPED_SECONDS + 1, pid=None) == []
