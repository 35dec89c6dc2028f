"""The documentation as a site: built without a warning, complete, readable without a network, and searchable."""

from __future__ import annotations

import base64
import json
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml

import imagexplain
from docsite import commands_page, http_reference, links, mathematics, notebook_pages
from imagexplain.checkout import ROOT
from tests.pages import PAGES, anchors

CHROMIUM = shutil.which("chromium")
TAGS = {"a": "href", "link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src", "form": "action"}
"""Attributes that are addresses."""
OPENED = ("index.html", "methods.html", "reference/http.html", "reference/methods.html", "evaluation_photos.html")
SCREENS: dict[int, Literal["light", "dark"]] = {1280: "light", 390: "dark"}
"""Colour schemes by width."""


class Document(HTMLParser):
    """A page's anchors and the addresses that it names, by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.addresses: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if (address := given.get(TAGS.get(tag, ""))) is not None:
            self.addresses.append((tag, address))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("material")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    seen: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)
    folder = tmp_path_factory.mktemp("site")
    try:
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    assert seen == []
    return folder


@pytest.fixture(scope="module")
def documents(site: Path) -> dict[str, Document]:
    """The site's pages by their places."""
    return {
        path.relative_to(site).as_posix(): Document(path.read_text("utf-8"))
        for path in site.rglob("*.html")
        if path.name != "404.html"
    }


def test_every_page_is_there_with_the_anchors_of_a_forge(documents: dict[str, Document]) -> None:
    for page in PAGES:
        place = links.place(links.relative(str(page)))
        assert place is not None
        assert anchors(page.read_text("utf-8")) <= documents[place.removesuffix(".md") + ".html"].anchors


def test_every_address_leads_somewhere(site: Path, documents: dict[str, Document]) -> None:
    missing = []
    for place, document in documents.items():
        for _, address in document.addresses:
            parts = urlsplit(urljoin(place, address))
            path, anchor = unquote(parts.path), unquote(parts.fragment)
            if not address or parts.scheme:
                continue
            known = documents[path].anchors if path in documents and anchor else {anchor}
            if not (site / path).is_file() or anchor not in known:
                missing.append(f"{place}: {address}")
    assert not missing


def test_nothing_is_asked_of_another_origin(site: Path, documents: dict[str, Document]) -> None:
    for place, document in documents.items():
        foreign = [address for tag, address in document.addresses if tag != "a" and urlsplit(address).netloc]
        assert not foreign, place
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text("utf-8")), style


def test_lists_and_tables_are_such(site: Path, documents: dict[str, Document]) -> None:
    """A list right after a line of text is one for a forge, but not for every reader of Markdown."""
    for place in documents:
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", (site / place).read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"<p>[^<]*\n *(- |\| )", text), place
        assert "<p>|" not in text, place


def test_no_formula_is_left_as_it_was_written(site: Path, documents: dict[str, Document]) -> None:
    assert not [place for place in documents if 'class="arithmatex"' in (site / place).read_text("utf-8")]


def test_every_public_name_is_in_the_reference_with_an_example(site: Path) -> None:
    text = "".join((site / "reference" / name).read_text("utf-8") for name in ("methods.html", "tools.html"))
    sections = {part.partition('"')[0].rpartition(".")[2]: part for part in text.split('<h3 id="')}
    for name in set(imagexplain.__all__) - {"__version__"}:
        assert "&gt;&gt;&gt;" in sections[name], name


def test_every_type_and_option_of_the_document_is_in_the_reference() -> None:
    (text,) = http_reference.pages().values()
    from imagexplain.api.openapi import document
    from imagexplain.serving.interface import GENERIC

    made: dict[str, Any] = document(GENERIC, generic=True)
    for name, schema in made["components"]["schemas"].items():
        assert "." in name or f"\n### {name}\n" in text
        assert all(
            f"| `{field}` |" in text for field in schema.get("properties", ()) if field not in ("image", "img_data")
        )
    assert all("{version}" in path or f" {path}`\n" in text for path in made["paths"])


def test_links_lead_to_where_pages_are() -> None:
    text = '[a](../README.md#x), [b](../archive_specs/m.yaml), `[c](../README.md)`, [d](#here), <img src="p.jpg">'
    wanted = '[a](index.md#x), [b](repository:archive_specs/m.yaml), `[c](../README.md)`, [d](#here), <img src="p.jpg">'
    assert links.rewritten(text, "docs/methods.md") == wanted
    assert links.rewritten("[a](../../docs/segments.md)", "archive_specs/weights/README.md") == "[a](segments.md)"
    html = '<a href="repository:archive_specs">specs</a>'
    assert links.without_repository(html, "https://example.org/r/") == (
        '<a href="https://example.org/r/archive_specs">specs</a>'
    )
    assert "<a" not in links.without_repository(html, "")


def test_a_formula_becomes_mathml() -> None:
    drawn = mathematics.drawn(r'<span class="arithmatex">\(a &lt; \frac{1}{2}\)</span>')
    assert drawn.startswith("<math") and "<mfrac>" in drawn and "span" not in drawn and "\\" not in drawn
    for latex in (r"\left( x", r"\unheard x", r"\begin{aligned} a &= b \end{aligned}"):
        with pytest.raises(ValueError, match=r"formula: wanted .* latex2mathml"):
            mathematics.drawn(rf'<div class="arithmatex">\[{latex}\]</div>')


def test_a_notebook_is_a_page_with_its_outputs(tmp_path: Path) -> None:
    picture = base64.b64encode(b"picture").decode()
    cells = [
        {"cell_type": "markdown", "source": ["# Numbers\n", "[all](../docs/methods.md)"]},
        {
            "cell_type": "code",
            "source": ["print(2)"],
            "outputs": [{"text": ["2\n"]}, {"data": {"image/png": picture, "text/plain": "<Figure>"}}],
        },
    ]
    (tmp_path / "numbers.ipynb").write_text(json.dumps({"cells": cells}))
    assert notebook_pages.pages(tmp_path) == {
        "notebooks/numbers.md": "# Numbers\n[all](../methods.md)\n\n```python\nprint(2)\n```\n\n```text\n2\n```\n\n"
        "![Output of the cell above](numbers_1.png)\n",
        "notebooks/numbers_1.png": b"picture",
    }


def test_the_page_of_commands_is_that_of_the_parsers() -> None:
    page = ROOT / "docs" / "commands.md"
    assert page.read_text("utf-8") == commands_page.page(), "python -m docsite.commands_page --write"


def test_the_change_log_has_the_version() -> None:
    """Kept as Keep a Changelog asks: what is to come first, then versions with their days, newest first."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1:]
    assert re.fullmatch(rf"\[Unreleased\](, to be {re.escape(imagexplain.__version__)})?", headings[0])
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:]]
    versions = [tuple(map(int, each[1].split("."))) for each in released if each is not None]
    assert len(versions) == len(released) and versions == sorted(versions, reverse=True)


def test_the_navigation_has_no_page_twice() -> None:
    text = re.sub(r"^ *hooks:.*$", "", (ROOT / "mkdocs.yml").read_text("utf-8"), flags=re.MULTILINE)
    pages = re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"]))
    assert len(pages) == len(set(pages))


class Quiet(SimpleHTTPRequestHandler):
    """A folder's files over HTTP, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_reads_and_searches_it_alone(address: str) -> None:
    """At both widths and in both colour schemes, with every request to another origin a failure."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    failed: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in SCREENS.items():
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("response", lambda answer: failed.extend([answer.url] * (answer.status >= 400)))
            page.on("pageerror", lambda error: failed.append(str(error)))
            for place in OPENED:
                page.goto(address + place)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{place} scrolls at {width}"
            shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", shown)[:3])) < 3 * 128) == (scheme == "dark")
            if scheme == "dark":  # the narrow page has its search behind a sign
                page.locator("label[for=__search]").first.click()
            page.locator("input[name=query]").click()
            page.get_by_text("Type to start searching").wait_for()  # the index is read
            page.keyboard.type("dividend")
            page.locator(".md-search-result__link").first.click()
            page.wait_for_load_state()
            assert "dividend" in page.locator("article").inner_text().lower()
        browser.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == failed == []
