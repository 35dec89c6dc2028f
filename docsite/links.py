"""Links between pages, which lead to the same places in a repository's browser and on the site.

Pages of the repository that are not in docs/ have a place on the site too; links to them, and from them, are rewritten.
What else a page links to, such as a spec, is in the repository alone: there its link becomes text, or an address under
the setting ``repository`` of mkdocs.yml.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from imagexplain.checkout import ROOT

OUTSIDE = {
    "README.md": "index.md",
    "docs/README.md": "pages.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "archive_specs/weights/README.md": "weights.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages whose place on the site is another than in docs/, by their paths in the repository."""

NOTEBOOKS = "notebooks/"
"""Folder of the notebooks, whose pages and pictures have the same places on the site."""

IN_REPOSITORY = "repository:"
"""Scheme of links to what the site does not have, until they are HTML."""

_FENCE = r"^```.*?^```$"
_CODE = r"`[^`\n]*`"
_LINK = re.compile(
    rf"{_FENCE}|{_CODE}|(?P<before>\]\(|\b(?:src|href)=\")(?P<target>[^()\s\"]+)(?P<after>[)\"])",
    re.MULTILINE | re.DOTALL,
)
_ANCHOR = re.compile(rf'<a href="{IN_REPOSITORY}([^"]*)">(.*?)</a>', re.DOTALL)


def place(path: str) -> str | None:
    """The place on the site of a file of the repository; none where the site does not have it."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith(NOTEBOOKS):
        return path.replace(".ipynb", ".md")
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def rewritten(markdown: str, path: str) -> str:
    """A page's text with its links as they are on the site.

    Args:
        path: Place of the page in the repository.
    """
    here = place(path)
    if here is None:
        raise ValueError(f"path: wanted a page of the site, got {path}")

    def target(found: re.Match[str]) -> str:
        link = found["target"]
        if link is None or re.match(r"[a-z]+:|#", link):
            return found[0]
        file, _, anchor = link.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
        there = place(wanted)
        new = f"{IN_REPOSITORY}{wanted}" if there is None else posixpath.relpath(there, posixpath.dirname(here) or ".")
        return f"{found['before']}{new}{'#' * bool(anchor)}{anchor}{found['after']}"

    return _LINK.sub(target, markdown)


def without_repository(html: str, repository: str) -> str:
    """HTML whose links to the repository lead to its address, or are text where it has none."""

    def link(found: re.Match[str]) -> str:
        path, text = found[1], found[2]
        if repository:
            return f'<a href="{repository.rstrip("/")}/{path}">{text}</a>'
        return f'<span class="in-repository" title="{path} in the repository">{text}</span>'

    return _ANCHOR.sub(link, html)


def relative(file: str) -> str:
    """The path of a file in the repository."""
    return Path(file).resolve().relative_to(ROOT).as_posix()


def slug(heading: str, separator: str) -> str:
    """The anchor that a forge gives to a heading: lower case, hyphens for spaces, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)
