from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.stub import Stub, serving


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server that answers as the test says."""
    with serving() as made:
        yield made
