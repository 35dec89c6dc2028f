"""A cluster of Ray on this machine, which the tests of jobs and of serving share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from tests.cluster.nodes import NODE, own_signals


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node; a test may add others, and takes them away again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's 15 makes its workers wait for all other tests
        with own_signals():
            cluster = Cluster(initialize_head=True, head_node_args=NODE)
        yield cluster
        cluster.shutdown()
