"""The studio's page as a person uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

LAPTOP = (1366, 768)
PHONE = (390, 844)
AXE = Axe()


@dataclass
class Studio:
    """A page, with what it complained of and asked for.

    Attributes:
        page: Page of the studio.
        complaints: Errors of its scripts, and what its policy forbade.
        asked: Addresses of all its requests.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Locator:
        """The settings that are shown."""
        return self.page.get_by_role("form").filter(visible=True)

    @property
    def answer(self) -> Locator:
        """The answers' headings."""
        return self.page.locator(".head h2")

    @property
    def said(self) -> Locator:
        """What is said to who hears the page."""
        return self.page.locator("#said")

    @property
    def shapes(self) -> Locator:
        """The segments over the photo."""
        return self.page.locator("path[role=switch]")

    def choose(self, label: str, value: str) -> None:
        """Choose in one of the settings' lists."""
        self.settings.get_by_label(label, exact=True).select_option(value)

    def choose_file(self, photo: bytes, name: str = "photo.png") -> None:
        """Give a photo as a file."""
        file: FilePayload = {"name": name, "mimeType": "image/png", "buffer": photo}
        self.settings.get_by_label("File of the photo").set_input_files([file])

    def give(self, photo: bytes, name: str = "photo.png") -> None:
        """Give a photo as a file, and wait for its prediction."""
        self.choose_file(photo, name)
        expect(self.settings.get_by_role("radio", name=re.compile("%"))).to_have_count(5, timeout=15_000)

    def explain(self) -> None:
        """Ask for the explanation, and wait for it."""
        before = self.answer.count()
        self.settings.get_by_role("button", name="Explain").click()
        expect(self.said).to_contain_text("Explained in", timeout=20_000)
        assert self.answer.count() >= before

    def check(self) -> None:
        """Hold the page as it is to axe's rules, and to its own width."""
        found = AXE.run(self.page)
        assert found.violations_count == 0, found.generate_report()
        width, room = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= room


@contextmanager
def studio(browser: Browser, address: str, size: tuple[int, int] = LAPTOP, **context: Any) -> Iterator[Studio]:
    """A fresh page, which must ask nothing of other origins and complain of nothing but what the service refuses."""
    held = browser.new_context(viewport={"width": size[0], "height": size[1]}, **context)
    shown = Studio(held.new_page())
    shown.page.set_default_timeout(15_000)
    shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.page.on(
        "console", lambda said: shown.complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    shown.page.on("request", lambda request: shown.asked.append(request.url))
    try:
        shown.page.goto(address)
        yield shown
        refused = re.compile("Failed to load resource: the server responded with a status of")
        assert [text for text in shown.complaints if not refused.match(text)] == []
        origin = address.split("/studio/")[0]
        assert [url for url in shown.asked if not url.startswith((origin, f"blob:{origin}"))] == []
    finally:
        held.close()
