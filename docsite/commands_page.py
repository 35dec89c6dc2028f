"""The page of the commands, made from their parsers.

python -m docsite.commands_page            print it
python -m docsite.commands_page --write    write docs/commands.md
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from unittest.mock import patch

from imagexplain import cli
from imagexplain.checkout import ROOT

PAGE = ROOT / "docs" / "commands.md"

_INTRODUCTION = """<!-- Made of the commands' parsers: python -m docsite.commands_page --write -->

# The command line

`imagexplain COMMAND` runs them in the active environment, `.venv/bin/imagexplain` without one, and
`imagexplain COMMAND --help` says the same as this page. They return 0, 1 for what failed, and 2 for a command line that
they do not understand. Scripts of the same names are in [scripts/](../scripts).
"""


class _Found(BaseException):
    """A parser, on its way out of the command that was about to use it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(module: str, prog: str) -> argparse.ArgumentParser:
    """The parser that a command makes.

    Args:
        module: Name of the module whose ``main(arguments, prog)`` runs the command.
        prog: Name of the program.
    """

    def found(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Found(parser)

    try:
        with patch.object(argparse.ArgumentParser, "parse_known_args", found):
            import_module(module).main([], prog)
    except _Found as caught:
        return caught.parser
    raise ValueError(f"module: wanted a command with a parser, got {module}")


def page() -> str:
    """The page of today."""
    sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
    lines = [_INTRODUCTION, "| command | |\n| --- | --- |"]
    lines += [f"| [`{name}`](#imagexplain-{name}) | {each.summary} |" for name, each in cli.COMMANDS.items()]
    lines.append("")
    for name, command in cli.COMMANDS.items():
        lines += _section(command.module, f"imagexplain {name}", 2)
    return "\n".join(lines).rstrip() + "\n"


def _section(module: str, prog: str, level: int) -> Iterator[str]:
    """A command's part of the page, and those of its own commands, however it keeps them."""
    yield from _described(parser_of(module, prog), prog, level)
    steps = getattr(import_module(module), "STEPS", None)
    for name, step in steps.items() if isinstance(steps, Mapping) else ():
        yield from _section(step.module, f"{prog} {name}", level + 1)


def _described(parser: argparse.ArgumentParser, prog: str, level: int, summary: str = "") -> Iterator[str]:
    yield f"{'#' * level} {prog}\n"
    yield from _text(parser.description or f"{summary.capitalize()}." * bool(summary), prog.rpartition(" ")[2])
    rows: list[str] = []
    commands: list[tuple[str, argparse.ArgumentParser, str]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
            commands += [(name, each, summaries.get(name, "")) for name, each in action.choices.items()]
        elif not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            rows.append(f"| {_named(action)} | {_meaning(parser, action)} |")
    if rows:
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""])
    for name, each, said in commands:
        yield from _described(each, f"{prog} {name}", level + 1, said)


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


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    said = [_escaped(" ".join(parser._get_formatter()._expand_help(action).split()))] if action.help else []
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
