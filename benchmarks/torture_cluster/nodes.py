"""Nodes of a cluster of Ray that all run on this machine: small ones, each with a port of its own for its proxy.

Each has a loopback address of its own, too. Ray replaces 127.0.0.1 by another address of the machine, and no other one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from imagexplain.ops.server import free_port

NODE: dict[str, Any] = {
    "num_cpus": 2,
    "object_store_memory": 80_000_000,
    "include_dashboard": False,
}

HEAD: dict[str, Any] = {**NODE, "num_cpus": 0, "node_ip_address": "127.0.0.2"}
"""A head that takes no replicas."""

ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # Ray's 15 makes its workers wait for all else
    # A proxy that is not ready within 15 seconds is killed and started anew, which on a busy machine never ends.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Variables of the nodes of a machine that has other things to do."""


@contextmanager
def own_signals() -> Iterator[None]:
    """This process's own handling of SIGTERM after the block: a node of Ray's that is started puts its in the place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class Node:
    """A node: what Ray's tests know of it, and the port of its proxy."""

    of_ray: Any
    port: int

    @property
    def address(self) -> str:
        """The node's address."""
        return str(self.of_ray.node_ip_address)

    @property
    def raylet(self) -> int:
        """Number of the process that all others of the node are children of."""
        (found,) = self.of_ray.all_processes["raylet"]
        return int(found.process.pid)

    def processes(self, title: str = "") -> list[psutil.Process]:
        """The node's processes whose title begins so, as Ray names them, such as ``ray::ServeReplica``."""
        try:
            children = psutil.Process(self.raylet).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [one for one in children if _title(one).startswith(title)]

    def kill(self) -> None:
        """End all its processes at once with SIGKILL, the raylet first, as a machine that loses its power does."""
        others = self.processes()
        os.kill(self.raylet, signal.SIGKILL)
        for one in others:
            if one.is_running():
                one.kill()


@dataclass
class Nodes:
    """A cluster whose head takes no replicas, and its workers.

    Attributes:
        cluster: Ray's cluster of this machine.
        head: Node of the GCS and of Serve's controller.
        workers: Nodes of the replicas.
        redis: Address of the Redis that outlives the head, if any.
    """

    cluster: Cluster
    head: Node
    workers: list[Node] = field(default_factory=list)
    redis: str | None = None

    @property
    def address(self) -> str:
        """Address of the GCS."""
        return str(self.cluster.address)

    @property
    def urls(self) -> list[str]:
        """Addresses of the proxies, the head's first."""
        return [f"http://127.0.0.1:{node.port}" for node in (self.head, *self.workers)]

    def add(self, address: str, port: int) -> Node:
        """Start a worker with this address, whose proxy listens on this port."""
        settings = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(port)}
        with own_signals():
            node = Node(self.cluster.add_node(**NODE, node_ip_address=address, env_vars=settings), port)
        self.workers.append(node)
        return node

    def kill(self, node: Node) -> None:
        """Kill a worker, and all that runs on it."""
        node.kill()
        self.cluster.remove_node(node.of_ray, allow_graceful=False)
        self.workers.remove(node)

    def kill_head(self) -> None:
        """Kill the head, and with it the GCS and Serve's controller; without Redis none of it can be mended then."""
        (gcs,) = self.head.of_ray.all_processes["gcs_server"]
        os.kill(gcs.process.pid, signal.SIGKILL)
        self.head.kill()
        self.cluster.remove_node(self.head.of_ray, allow_graceful=False)

    def replace_head(self) -> None:
        """Start a head in the place of one that was killed, with its address and ports; it reads what that one knew."""
        with own_signals(), redis_at(self.redis):
            port = int(self.head.of_ray.gcs_address.rpartition(":")[2])
            self.head = Node(self.cluster.add_node(**HEAD, gcs_server_port=port), self.head.port)


@contextmanager
def redis_at(address: str | None) -> Iterator[None]:
    """Let a head that is started in the block keep what it knows in a Redis, if there is one, as `ray start` does."""
    given = {} if address is None else {"RAY_REDIS_ADDRESS": address}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]


@contextmanager
def nodes(workers: int, redis: str | None = None) -> Iterator[Nodes]:
    """Start a head and workers; at the end, stop whatever of them still runs.

    Args:
        workers: Number of workers.
        redis: Address of the Redis that outlives the head, if any.
    """
    os.environ.update(ENVIRONMENT)
    port = free_port()
    with own_signals(), redis_at(redis):
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        found = Nodes(cluster, Node(cluster.head_node, port), redis=redis)
        for place in range(1, workers + 1):
            found.add(f"127.0.0.{2 + place}", port + place)
        yield found
    finally:
        cluster.shutdown()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
