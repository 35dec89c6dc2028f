import pytest

from imagexplain.errors import RequestError
from imagexplain.serving.deadline import Deadline, ema
from imagexplain.serving.model_facts import ModelFacts


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
        estimate = ema(estimate, seconds=10, points=50)
    assert estimate == pytest.approx(0.2, rel=1e-3)


def test_a_default_request_alone_is_always_tried() -> None:
    """An estimate that was taken on a busy host must not lock everybody out: only a pass can correct it."""
    deadline = Deadline.starting_now(10, 5.0, always_admitted=52, clock=Clock())
    deadline = deadline.admit(52)
    with pytest.raises(RequestError):
        deadline.admit(2)
    with pytest.raises(RequestError):
        Deadline.starting_now(10, 5.0, always_admitted=52, clock=Clock()).admit(53)


def test_seconds_beside_the_model_count_like_points() -> None:
    deadline = Deadline.starting_now(10, 0.1, clock=Clock())
    deadline.admit(50, seconds=5)
    with pytest.raises(RequestError) as refused:
        deadline.admit(50, "samples", seconds=6)
    assert (refused.value.status, refused.value.field) == (413, "samples")
    assert "about 40 points on this host, got 50 points, about 11 s, 6 s of them beside the model" in str(refused.value)
    with pytest.raises(RequestError, match="413 masks: wanted work of at most 10 s, got about 12 s"):
        deadline.admit(field="masks", seconds=12)
    with pytest.raises(RequestError) as full:
        deadline.admit(50, seconds=4).admit(field="masks", seconds=2)
    assert full.value.status == 503


def test_what_is_always_tried_is_tried_for_its_points_alone() -> None:
    trusting = Deadline.starting_now(10, 5.0, always_admitted=52, clock=Clock())
    trusting.admit(52, seconds=9)
    with pytest.raises(RequestError, match="413"):
        trusting.admit(52, seconds=11)


def test_a_methods_slowness_is_its_own_and_moves_by_bounded_steps() -> None:
    facts = ModelFacts()
    facts.learn("ablation_cam", "layer4", 0.01, finished=True)
    assert facts.cost_ratio_of("ablation_cam", "layer4") == pytest.approx(0.7 + 0.3 / 4)
    assert facts.cost_ratio_of("ablation_cam", "layer1") == facts.cost_ratio_of("rise") == 1
    facts.learn("rise", None, 1000, finished=True)
    assert facts.cost_ratio_of("rise") == pytest.approx(0.7 + 0.3 * 4)
    for _ in range(40):
        facts.learn("rise", None, 1000, finished=True)
    assert facts.cost_ratio_of("rise") == 32
    for _ in range(40):
        facts.learn("rise", None, 2, finished=True)
    assert facts.cost_ratio_of("rise") == pytest.approx(2, rel=1e-3)
    facts.learn("rise", None, 0.5, finished=False)  # given up after half of the time that it takes: known before
    assert facts.cost_ratio_of("rise") == pytest.approx(2, rel=1e-3)
