"""Hooks of MkDocs: pages from outside of docs/ and pages that are made, links, anchors and formulas."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docsite import http_reference, library_reference, links, mathematics, notebook_pages
from imagexplain.checkout import ROOT

STYLE = "site.css"
INDEX = "README.md"
"""Page of docs/ that a repository's browser shows for the folder; the site begins with the project's own README."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that they have in a repository's browser."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = links.slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, the pages that are made, and the style."""
    if (index := files.get_file_from_path(INDEX)) is not None:
        files.remove(index)
    for path, place in links.OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    made = http_reference.pages() | library_reference.pages() | notebook_pages.pages()
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    style = File.generated(config, STYLE, abs_src_path=str(ROOT / "docsite" / STYLE))
    style.inclusion = InclusionLevel.INCLUDED
    files.append(style)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of a page that is a file of the repository."""
    source = page.file.abs_src_path
    return markdown if source is None else links.rewritten(markdown, links.relative(source))


def on_page_content(html: str, config: MkDocsConfig, **_: object) -> str:
    """Draw the formulas, and settle what the site does not have."""
    settled = links.without_repository(html, config.extra.get("repository") or "")
    return mathematics.drawn(library_reference.linked(settled))
