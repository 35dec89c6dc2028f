"""The documentation as tests read it: its pages, their blocks of code, tables and links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from imagexplain.ops.server import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NOTES = [ROOT / "benchmarks" / "README.md", ROOT / "archive_specs" / "weights" / "README.md"]
"""Pages beside what they tell of, which have links too."""

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^()\s]*(?:\([^()\s]*\))?[^()\s]*)\)|\b(?:src|href)=\"([^\"]*)\"")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code: the page's name, the language after the fence, and the text."""

    page: str
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """All blocks of code of a page."""
    name = page.relative_to(ROOT).as_posix()
    return [Block(name, language, code) for language, code in _FENCE.findall(page.read_text("utf-8"))]


def rows(text: str) -> list[list[str]]:
    """The cells of all lines of tables, headings included."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines]


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures, but not those within code."""
    for found in _LINK.finditer(_CODE.sub("", _FENCE.sub("", text))):
        yield unquote(found[1] or found[2] or "")


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives to a page's headings: lower case, hyphens for spaces, no punctuation; repeated
    ones are numbered."""
    seen = Counter[str]()
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken(page: Path, text: str | None = None) -> list[str]:
    """A page's relative links that lead to no file of the repository, or to no heading of one."""
    missing = []
    for link in links(page.read_text("utf-8") if text is None else text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        found = file.is_relative_to(ROOT) and file.exists()
        if found and anchor:
            found = file.suffix == ".md" and anchor in anchors(file.read_text("utf-8"))
        if not found:
            missing.append(link)
    return missing
