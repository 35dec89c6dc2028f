"""The server that the tests ask: the repository's archives, served by a TorchServe of their own on free ports."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from imagexplain.archive.build import build_all
from imagexplain.client.client import Client
from imagexplain.client.loopback import urlopen
from imagexplain.ops.server import ROOT, Server, free_port, start, stop

GROUPS = {"debugging": "debugging"}
"""Folders of tests whose files share fixtures."""

# The tests' own requests stay on this machine, whatever proxy they are run behind.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


if "PYTEST_XDIST_WORKER" in os.environ:  # several share the cores: a thread each, in the servers that they start, too
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep on one worker what shares fixtures: the tests of a file, and of all files that ask the served archives."""
    files = {item.path: GROUPS.get(item.path.parent.name, str(item.path.relative_to(ROOT))) for item in items}
    files |= {item.path: "served" for item in items if "served" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(files[item.path]))
    items.sort(key=lambda item: files[item.path] != "served")  # the longest first, so that it is not waited for


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers for a test whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@dataclass(frozen=True)
class Served:
    """A running server, a client of it, and its metrics before any request."""

    server: Server
    client: Client
    first_metrics: str


def metrics(server: Server) -> str:
    """The Prometheus text of a server."""
    with urlopen(server.metrics, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration archives, built by the tests."""
    store = tmp_path_factory.mktemp("model_store")
    build_all(sorted((ROOT / "archive_specs").glob("*.yaml")), store)
    return store


@pytest.fixture(scope="session")
def served(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demonstration archives, served."""
    run = tmp_path_factory.mktemp("run")
    server = start(store=model_store, run=run, port=free_port())
    try:
        yield Served(server, Client(server.inference, server.headers()), metrics(server))
    finally:
        stop(run)
