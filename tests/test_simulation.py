"""The simulations of jobs and of replicas, beside what theory and arithmetic by hand say."""

from __future__ import annotations

from math import exp, factorial
from statistics import mean

import pytest

from benchmarks.simulate_jobs import JobModel, ServingModel, simulate_job, simulate_serving

DAY = 86_400.0


def test_a_makespan_by_hand() -> None:
    """Chunks of 6, 6, 6 and 2 seconds after a start of 5, each handed out in 1 second, one at a time:
    the first worker's are handed out at 5 and at 12, the second's at 6 and, once that is done, at 13."""
    model = JobModel(images=10, chunk=3, workers=2, image_s=2.0, start_s=5.0, driver_s=1.0)
    assert simulate_job(model, 0).seconds == 13 + 6
    assert simulate_job(JobModel(images=100, chunk=1, workers=100, image_s=7.0, driver_s=0.5), 0).seconds == 50 + 7
    slow = JobModel(images=8, chunk=1, workers=2, image_s=1.0, workers_of_node=1, slow_nodes=1.0, slowness=3.0)
    assert simulate_job(slow, 0).seconds == 12


@pytest.mark.parametrize(("per_node", "absent"), [(False, 0.0), (True, 0.3)])
def test_the_mean_time_with_deaths(per_node: bool, absent: float) -> None:
    """Deaths of rate λ, work of s that begins anew: (exp(λ s) − 1) / λ, of which the first attempt may be shorter."""
    rates = {"node_deaths_per_day": 1.0, "node_s": absent * DAY} if per_node else {"actor_deaths_per_day": 1.0}
    model = JobModel(images=1, chunk=1, workers=1, image_s=0.5 * DAY, start_s=0.2 * DAY, **rates)  # type: ignore[arg-type]
    runs = [simulate_job(model, seed) for seed in range(4000)]
    first, again = 0.7, 0.7 + absent
    wanted = (1 - exp(-first)) + (1 - exp(-first)) * (exp(again) - 1)
    assert mean(run.seconds for run in runs) / DAY == pytest.approx(wanted, rel=0.06)
    assert all(run.seconds == pytest.approx(0.7 * DAY) for run in runs if run.deaths == 0)
    assert all(run.seconds > 0.7 * DAY and run.lost_images <= run.deaths for run in runs if run.deaths)


def test_each_image_is_computed_once_in_the_end() -> None:
    model = JobModel(1000, 7, 16, 60.0, 0.3, 30.0, 0.1, 20.0, 10.0, 600.0, 4, 0.2, 3.0)
    run = simulate_job(model, 1)
    assert run.deaths > 3 and run.lost_images > 0 and run.seconds > model.work_s / 16


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_waits_of_one_replica_with_equal_seconds(load: float) -> None:
    """M/D/1: ρ / (2 (1 − ρ)) of the seconds of one."""
    waits = simulate_serving(ServingModel(rate=load / 2, first_s=2.0, further_s=0.0), 40_000, 3).waits
    assert mean(waits) == pytest.approx(2 * load / (2 * (1 - load)), rel=0.06)


def test_waits_of_several_replicas_with_random_seconds() -> None:
    """M/M/c: Erlang's C by the rate at which c replicas are free of what comes."""
    replicas, load = 3, 0.7
    offered = replicas * load
    full = offered**replicas / factorial(replicas) / (1 - load)
    waiting = full / (sum(offered**count / factorial(count) for count in range(replicas)) + full)
    model = ServingModel(rate=offered, first_s=1.0, further_s=0.0, spread=1.0, replicas=replicas)
    assert mean(simulate_serving(model, 40_000, 5).waits) == pytest.approx(waiting / (replicas - offered), rel=0.08)


def test_what_a_full_queue_refuses() -> None:
    """M/M/1/K, of which one is served; and twice what full batches answer, of which half is refused."""
    run = simulate_serving(ServingModel(rate=0.8, first_s=1.0, further_s=0.0, spread=1.0, queue=3), 40_000, 7)
    assert run.refused / run.came == pytest.approx(0.2 * 0.8**4 / (1 - 0.8**5), rel=0.06)
    model = ServingModel(rate=1.0, first_s=2.0, further_s=1.0, replicas=2, batch=4, queue=20)
    assert model.capacity == 1.6
    crowded = simulate_serving(ServingModel(3.2, 2.0, 1.0, 0.0, 2, 4, 20), 20_000, 9)
    assert crowded.refused / crowded.came == pytest.approx(0.5, abs=0.02)
