"""The page of the commands, made from their parsers.

python -m docsite.commands_page            print it
python -m docsite.commands_page --write    write docs/commands.md
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

from imagexplain.checkout import ROOT
from imagexplain.cli.parsers import CommandParser, command_parsers

PAGE = ROOT / "docs" / "commands.md"

_INTRODUCTION = """<!-- Made of the commands' parsers: python -m docsite.commands_page --write -->

# The command line

`imagexplain COMMAND` runs them in the active environment, `.venv/bin/imagexplain` without one, and
`imagexplain COMMAND --help` says the same as this page. They return 0, 1 for what failed, and 2 for a command line that
they do not understand. Some are scripts in [scripts/](../scripts), too.
"""


def page() -> str:
    """The page of today."""
    commands = command_parsers()
    lines = [_INTRODUCTION, "| command | |\n| --- | --- |"]
    lines += [f"| [`{name}`](#imagexplain-{name}) | {each.summary} |" for name, each in commands.items()]
    lines.append("")
    for each in commands.values():
        lines += _section(each, 2)
    return "\n".join(lines).rstrip() + "\n"


def _section(command: CommandParser, level: int) -> Iterator[str]:
    """A command's part of the page, and those of its own commands."""
    prog = command.parser.prog
    yield f"{'#' * level} {prog}\n"
    yield from _text(command.parser.description or f"{command.summary.capitalize()}.", prog.rpartition(" ")[2])
    rows = [f"| {_named(each)} | {_meaning(command, each)} |" for each in command.arguments()]
    if rows:
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""])
    for each in command.commands.values():
        yield from _section(each, level + 1)


def _text(description: str, name: str) -> Iterator[str]:
    """A description, its examples in a block: lines that begin with the command."""
    example = re.compile(rf"(imagexplain|python|torchrun|[\w.]+\.py|{re.escape(name)}) ")
    for paragraph in filter(None, re.split(r"\n\s*\n", description.strip())):
        lines = [line.strip() for line in paragraph.splitlines()]
        if all(map(example.match, lines)):
            yield "\n".join(["```text", *lines, "```", ""])
        else:
            yield textwrap.fill(_escaped(" ".join(lines)), 120, break_on_hyphens=False, break_long_words=False) + "\n"


def _named(action: argparse.Action) -> str:
    """An argument as one writes it."""
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = " ".join(value) if isinstance(value, tuple) else value
    if action.nargs in ("+", "*"):
        value += " …"
    if action.option_strings and action.nargs != 0:
        return ", ".join(f"`{each} {value}`" for each in action.option_strings)
    return ", ".join(f"`{each}`" for each in action.option_strings or [value])


def _meaning(command: CommandParser, action: argparse.Action) -> str:
    said = [_escaped(command.help_of(action))] if action.help else []
    if action.choices:
        said.append(", ".join(f"`{choice}`" for choice in action.choices))
    if action.option_strings and action.required:
        said.append("required")
    return "; ".join(said)


def _escaped(text: str) -> str:
    """Words whose signs are no Markdown, outside of code."""
    return re.sub(r"(`[^`]*`)|([|<*])", lambda found: found[1] or f"\\{found[2]}", text)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/commands.md")
    if parser.parse_args(arguments).write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
