"""A front door with a fake server behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_config import binary, installed
from imagexplain.ops.edge_settings import EdgeError, EdgeSettings
from imagexplain.ops.server import Server
from tests.ops.door import CLIENTS, GENEROUS, Door, faked


@pytest.fixture(scope="session")
def nginx() -> str:
    """nginx with JavaScript; where tests must not be left out, its absence is a failure."""
    try:
        found = binary()
        installed(found)
        return found
    except EdgeError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fake TorchServe with two models that are ready."""
    run = tmp_path_factory.mktemp("fake")
    with faked(run) as server:
        yield server


@pytest.fixture(scope="module")
def door(fake: Server, nginx: str) -> Iterator[Door]:
    """A front door before it, whose limits no test meets that does not set its own."""
    folder = Path(fake.run) / edge.FOLDER
    keys = {client: edge_keys.add(folder, client) for client in CLIENTS}
    settings = EdgeSettings(port=fake.ports["inference"] + 6, client=GENEROUS, address=GENEROUS)
    running = edge.start(fake, settings)
    try:
        yield Door(fake, settings, running, keys)
    finally:
        edge.stop(Path(fake.run), drain_s=1, quiet=True)
