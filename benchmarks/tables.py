"""Tables of records in pages of docs/: what stands between two comments is made from a record."""

from __future__ import annotations

from collections.abc import Mapping

from imagexplain.ops.server import ROOT


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables in the place of its own.

    Args:
        page: Text of a page.
        tables: Tables in Markdown, by the name that their comments have.

    Raises:
        ValueError: the page has no place for one.
    """
    for name, text in tables.items():
        before, begin, rest = page.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end of the table -->\n")
        if not begin or not end:
            raise ValueError(f"page: wanted a comment 'table: {name}' and one at its end, got a page without")
        page = before + begin + text + end + after
    return page


def put(name: str, tables: Mapping[str, str]) -> None:
    """Put tables into a page of docs/."""
    path = ROOT / "docs" / f"{name}.md"
    path.write_text(with_tables(path.read_text("utf-8"), tables), encoding="utf-8")
