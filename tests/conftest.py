"""The server that the tests ask: the repository's archives, served by a TorchServe of their own on free ports."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

from imagexplain.archive.build import build_all
from imagexplain.client import Client
from imagexplain.client.loopback import urlopen
from imagexplain.ops.server import ROOT, Server, free_port, start, stop

FOLDERS = ("tests/cluster/", "tests/debugging/")
"""Folders of tests whose files share fixtures."""

# The tests' own requests stay on this machine, whatever proxy they are run behind.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

# Frontends that live for seconds are not worth the JVM's second compiler, which takes a third of their start.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


if "PYTEST_XDIST_WORKER" in os.environ:  # several share the cores: a thread each, in the servers that they start, too
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


class FixtureScheduling(LoadScopeScheduling):
    """Tests in groups that stay on one worker, as what they share is set up once for each worker.

    xdist's own groups, by a mark, are lost on pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])


@cache
def group_of(file: str) -> str:
    """The group of a test file: itself, but for those that ask the served archives, and those of one folder."""
    if "served: " in (ROOT / file).read_text(encoding="utf-8"):
        return "served"
    return next((folder for folder in FOLDERS if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand tests out by :func:`group_of`."""
    return FixtureScheduling(config, log)


# Who starts the tests in the background has this signal ignored, and so would have the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # what is collected stays: there is no garbage to look for


def pytest_collection_finish() -> None:
    """Have the collections of garbage pass over the modules and the tests, or each would look at them anew."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest group where several workers share the tests, so that it is not waited for."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: group_of(item.nodeid.partition("::")[0]) != "served")


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
    """The demonstration archives, built by the tests: once for all workers, as what is built already is kept."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "model_store.lock"):
        build_all(sorted((ROOT / "archive_specs").glob("*.yaml")), folder / "model_store")
    return folder / "model_store"


@pytest.fixture(scope="session")
def served(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demonstration archives, served."""
    run = tmp_path_factory.mktemp("run")
    server = start(store=model_store, run=run, port=free_port())
    try:
        yield Served(server, Client(server.inference, headers=server.headers()), metrics(server))
    finally:
        stop(run)
