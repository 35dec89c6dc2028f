"""One browser for each file of tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.studio import browser as studio
from tests.studio.browser import Modules


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; where tests must not be left out, its absence is a failure."""
    if not Path(studio.CHROMIUM).exists():
        missing = f"{studio.CHROMIUM} is not installed: make setup-ops"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with studio.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def core(browser: Browser) -> Modules:
    """The modules of the studio's core."""
    return studio.modules(browser)
