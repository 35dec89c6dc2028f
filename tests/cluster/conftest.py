"""A cluster of Ray on this machine, which the tests of jobs and of serving share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from benchmarks.torture_cluster.nodes import ENVIRONMENT, NODE, own_signals


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node; a test may add others, and takes them away again."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with own_signals():
            cluster = Cluster(initialize_head=True, head_node_args=NODE)
        yield cluster
        cluster.shutdown()
