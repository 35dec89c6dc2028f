"""A front door with a fake server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import EdgeSettings
from imagexplain.ops.server import Server
from tests.ops.door import CLIENTS, GENEROUS, Door, faked, nginx_with_javascript


@pytest.fixture(scope="session")
def nginx() -> str:
    """nginx with JavaScript, without which the test is left out."""
    return nginx_with_javascript()


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
