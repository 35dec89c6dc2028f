"""The threads of the evaluation's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.threads import one_thread as by_one_thread


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for a module's tests, as many as before for the tests after them."""
    with by_one_thread():
        yield
