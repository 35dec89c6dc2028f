"""Links between the pages, and the pages' list."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagexplain.ops.server import ROOT
from tests.pages import NOTES, PAGES, anchors, broken, links

INDEX = ROOT / "docs" / "README.md"


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_what_leads_nowhere_is_found() -> None:
    text = """See [this](methods.md#options), [that](methods.md#optoins), [another](method.md), [here](#below),
`[no](link)`, <img src="photo.jpg"> and <img src="phtoo.jpg">, [outside](../../elsewhere.md) and [far away](https://example.org/#any).
"""
    wanted = ["methods.md#optoins", "method.md", "#below", "phtoo.jpg", "../../elsewhere.md"]
    assert broken(INDEX, text) == wanted


def test_anchors_are_those_of_a_forge() -> None:
    text = "# A `method`'s *rows*, and more\n```sh\n# no heading\n```\n## Same\n### Same\n## [Linked](x.md) one_two"
    assert anchors(text) == {"a-methods-rows-and-more", "same", "same-1", "linked-one_two"}


def test_the_index_names_every_page() -> None:
    named = {(INDEX.parent / link).resolve() for link in links(INDEX.read_text("utf-8"))}
    assert set(PAGES) | set(NOTES) == named | {INDEX}


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in links((ROOT / "README.md").read_text("utf-8"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
