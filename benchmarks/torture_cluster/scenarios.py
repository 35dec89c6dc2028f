"""The things that die or change, one at a time, each under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from benchmarks.torture.answers import Verdict
from benchmarks.torture.found import Found
from benchmarks.torture.waiting import listens, until
from benchmarks.torture_cluster.nodes import Node
from benchmarks.torture_cluster.served import Served
from imagexplain.ops.processes import wait_for_ends

CALM_S = 10.0
FLOOD = 200
MANY = 12
"""Number of clients more, for whom replicas are added."""
MAX_REPLICAS = 4
QUICK = {"target_ongoing_requests": 2, "upscale_delay_s": 2, "downscale_delay_s": 5}
"""Settings of autoscaling that show in a minute what those of the Serve config do in a quarter of an hour."""
OFTEN = {"metrics_interval_s": 1, "look_back_period_s": 5}
RECOVERY_S = 240.0
HEAD_GONE_S = 20.0
"""Seconds without a head, less than the 60 for which the other nodes wait for one."""
OUTAGE_S = 15.0
"""Seconds without a right answer after which there is an outage."""

PROXY, CONTROLLER, REPLICA = "ray::ProxyActor", "ray::ServeController", "ray::ServeReplica"

Scenario = Callable[[Served], Found]


def calm(served: Served) -> Found:
    """Nothing dies."""
    time.sleep(CALM_S)
    return Found()


def killed_replica(served: Served) -> Found:
    """kill -9 of a replica."""
    victim = min(served.running())
    with _again(served, f"{served.replicas} replicas", lambda: served.is_whole({victim})) as found:
        os.kill(victim, signal.SIGKILL)
    return found


def killed_proxy(served: Served) -> Found:
    """kill -9 of the proxy of a worker with a replica: Ray starts none where there is no replica."""
    node = _of_most_replicas(served)
    (proxy,) = node.processes(PROXY)
    with _again(served, "it listens", lambda: _listens(node, proxy)) as found:
        proxy.kill()
    return found


def killed_controller(served: Served) -> Found:
    """kill -9 of Serve's controller."""
    (controller,) = served.nodes.head.processes(CONTROLLER)

    def again() -> bool:
        return not controller.is_running() and served.is_whole(set())

    with _again(served, "it tells of all replicas", again) as found:
        controller.kill()
    return found


def killed_node(served: Served) -> Found:
    """kill -9 of all processes of a worker with a replica; another takes its address once all has been mended.

    That one has no proxy until it has a replica.
    """
    node = _of_most_replicas(served)
    victims = {one.pid for one in node.processes(REPLICA)}
    with _again(served, f"{served.replicas} replicas", lambda: served.is_whole(victims)) as found:
        served.nodes.kill(node)
    found.told = f"{len(victims)} of {served.replicas} replicas on it; {found.told}"
    served.nodes.add(node.address, node.port)
    return found


def rolled_out(served: Served) -> Found:
    """Another version of the archive; answers of either are right until all replicas are new."""
    older, load = served.running(), served.load
    archive, known = served.newer
    begun = time.monotonic()
    load.known = {question: (*load.known[question], *known[question]) for question in known}
    served.deploy(archive)
    until(lambda: served.is_whole(older), RECOVERY_S)
    told = f"new after {time.monotonic() - begun:.0f} s"
    time.sleep(1)  # for answers that are on their way
    load.known = dict(known)
    load.until_right(RECOVERY_S)
    return Found(told=told)


def full_queue(served: Served) -> Found:
    """More requests at once than the proxies' queues hold."""
    *_, question = served.load.known
    served.load.flood(question, FLOOD)
    return Found(told=f"{FLOOD} at once")


def scaled(served: Served) -> Found:
    """Replicas are added while many clients ask, and taken away after."""
    limits = {"min_replicas": served.replicas, "max_replicas": MAX_REPLICAS}
    served.deploy(autoscaling_config=limits | QUICK | OFTEN)
    begun = time.monotonic()
    with served.load.running(MANY, pause_s=0):
        until(lambda: len(served.running()) == MAX_REPLICAS, RECOVERY_S)
        risen = time.monotonic()
        time.sleep(CALM_S)
    left = time.monotonic()
    until(lambda: len(served.driver.replicas(served.name)) == served.replicas, RECOVERY_S)
    down = time.monotonic() - left
    return Found(
        told=f"{MAX_REPLICAS} replicas after {risen - begun:.0f} s, {served.replicas} again after {down:.0f} s"
    )


def killed_head(served: Served) -> Found:
    """kill -9 of all of the head, without Redis: the last scenario of a cluster."""
    begun = time.monotonic()
    served.nodes.kill_head()

    def last_right() -> float:
        return max(
            (each.settled for each in list(served.load.outcomes) if each.verdict == Verdict.RIGHT), default=begun
        )

    until(lambda: time.monotonic() - last_right() > OUTAGE_S, RECOVERY_S)
    return Found(told=f"answers for {last_right() - begun:.0f} s, then none")


def replaced_head(served: Served) -> Found:
    """kill -9 of all of the head, which another one replaces after a while: it reads from Redis what that one knew."""
    before, found = served.running(), Found(time.monotonic())
    served.nodes.kill_head()
    time.sleep(HEAD_GONE_S)
    served.nodes.replace_head()
    back = time.monotonic()
    until(lambda: served.is_whole(set()) and listens(served.nodes.head.port), RECOVERY_S)
    whole = time.monotonic() - back
    kept = len(before & served.running())
    one_more = served.replicas + 1  # which a cluster without a controller would not start
    asked = time.monotonic()
    served.deploy(autoscaling_config={"min_replicas": one_more, "max_replicas": one_more} | QUICK)
    until(lambda: len(served.running()) == one_more, RECOVERY_S)
    found.told = (
        f"another head after {HEAD_GONE_S:.0f} s tells of all replicas and listens after {whole:.0f} s, {kept} of them "
        f"as before; one more after {time.monotonic() - asked:.0f} s"
    )
    return found


SCENARIOS: dict[str, Scenario] = {
    "calm": calm,
    "kill -9 of a replica": killed_replica,
    "kill -9 of a proxy": killed_proxy,
    "kill -9 of the controller": killed_controller,
    "kill -9 of a node": killed_node,
    "roll-out": rolled_out,
    "scaling": scaled,
    "full queue": full_queue,
    "kill -9 of the head": killed_head,
    "kill -9 of the head with Redis": replaced_head,
}

ONCE = ("kill -9 of the head",)
"""Scenarios that no way of asking changes."""

WITH_REDIS = ("kill -9 of the head with Redis",)
"""Scenarios of a cluster whose head keeps what it knows in a Redis; each has one of its own."""


def _of_most_replicas(served: Served) -> Node:
    return max(served.nodes.workers, key=lambda node: len(node.processes(REPLICA)))


@contextmanager
def _again(served: Served, what: str, true: Callable[[], object]) -> Iterator[Found]:
    """Findings of what goes wrong in the block, once something holds again and right answers come."""
    found = Found(time.monotonic())
    yield found
    until(true, RECOVERY_S)
    found.told = f"{what} again after {time.monotonic() - (found.since or 0):.0f} s"
    served.load.until_right(RECOVERY_S)


def _listens(node: Node, killed: psutil.Process) -> bool:
    """Tell whether a node's proxy takes connections again after one was killed."""
    return not wait_for_ends([killed], 0) and listens(node.port)
