"""A page in Chromium that imports the studio's modules."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

from imagexplain.checkout import ROOT

STUDIO = ROOT / "studio"
ORIGIN = "http://studio.test"
CHROMIUM = "/usr/bin/chromium"


@dataclass(frozen=True)
class Modules:
    """A page from which the modules of the studio's core are called."""

    page: Page

    def run(self, module: str, code: str, *given: Any) -> Any:
        """The value of JavaScript, in which `m` is a module and `a` the list of what is given."""
        return self.page.evaluate(
            "async ([path, code, given]) => {"
            " const make = Object.getPrototypeOf(async () => {}).constructor;"
            " return new make('m', 'a', code)(await import(path), JSON.parse(given)); }",
            [f"{ORIGIN}/core/{module}.js", code, json.dumps(given)],  # as text: playwright takes seconds for a document
        )

    def value(self, module: str, expression: str, *given: Any) -> Any:
        """The value of an expression, as for :meth:`run`."""
        return self.run(module, f"return {expression};", *given)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def modules(browser: Browser) -> Modules:
    """An empty page of an origin that has the studio's files, and nothing else."""
    page = browser.new_page()
    page.route("**/*", _file)
    page.goto(f"{ORIGIN}/")
    return Modules(page)


def _file(route: Route) -> None:
    path = Path(STUDIO, route.request.url.removeprefix(f"{ORIGIN}/"))
    if route.request.url == f"{ORIGIN}/":
        route.fulfill(body="<!doctype html>", content_type="text/html")
    elif path.is_file():
        route.fulfill(body=path.read_bytes(), content_type=mimetypes.guess_type(path.name)[0] or "text/javascript")
    else:
        route.fulfill(status=404)
