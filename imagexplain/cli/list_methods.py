"""The list of all attribution methods in docs/methods.md, made from what the registry knows of each.

python -m imagexplain.cli.list_methods            print it
python -m imagexplain.cli.list_methods --write    put it into the page
"""

from __future__ import annotations

import argparse
from typing import get_args

from imagexplain.api.method_options import CLIENTS_NAMES
from imagexplain.attribution.registry import METHODS, Family, Method
from imagexplain.ops.server import ROOT

PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- list of methods: python -m imagexplain.cli.list_methods --write -->\n", "<!-- end of the list -->\n"

SUPPLIED = {
    "layer": "layer",
    "baselines": "baseline",
    "fill": "baseline",
    "references": "references",
    "groups": "groups",
    "segments": "segments",
}
"""Words for what a request supplies."""


def listing() -> str:
    """The Markdown table, family by family."""
    lines = ["| method | family | needs of the model | takes | its map | compared with |", "| --- " * 6 + "|"]
    lines += [_row(method) for family in get_args(Family) for method in METHODS.values() if method.family == family]
    return "\n".join(lines) + "\n"


def with_listing(page: str) -> str:
    """The page with the list of today in place of its own.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"page: wanted the lines {BEGIN.strip()} and {END.strip()}, got a page without")
    return before + begin + listing() + end + after


def _row(method: Method) -> str:
    needs = ", ".join(need for need in ("gradients", "module", "attention", "nonlinearities") if need in method.needs)
    takes = ", ".join(
        [f"`{CLIENTS_NAMES.get(name, name)}`" for name in method.options]
        + [SUPPLIED[name] for name in method.parameters if name in SUPPLIED]
    )
    marks = {
        "at least 0": method.coarse,
        "fine, of both signs": method.speckled and not method.sensitivity,
        "sensitivity": method.sensitivity,
        "less its mean": method.centred,
    }
    drawn = ", ".join(mark for mark, holds in marks.items() if holds) or "signed"
    peer = f"{method.peer.package}: {method.peer.kind}" if method.peer else ""
    return f"| `{method.name}` | {method.family} | {needs} | {takes} | {drawn} | {peer} |"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the list into docs/methods.md")
    if parser.parse_args(arguments).write:
        PAGE.write_text(with_listing(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(listing(), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
