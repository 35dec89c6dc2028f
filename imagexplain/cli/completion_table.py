"""The table of all commands and their arguments, made of their parsers, by which a shell completes them.

It is a file, as some commands take seconds to import.

python -m imagexplain.cli.completion_table            print it
python -m imagexplain.cli.completion_table --write    write imagexplain/cli/completions.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from imagexplain.cli.parsers import CommandParser

TABLE = Path(__file__).with_name("completions.json")

Values = Literal["files", "models", "methods"] | list[str]
"""Words that an argument may be: those of a kind, or these."""

KINDS: dict[str, Literal["models", "methods"]] = {
    "model": "models",
    "models": "models",
    "method": "methods",
    "methods": "methods",
}
"""Kinds of values of arguments by their names, which have no choices of their own."""


class Argument(msgspec.Struct, omit_defaults=True):
    """An argument of a command.

    Attributes:
        help: Words about it.
        nargs: Number of its values, as argparse has it: 0 for a flag, None for one.
        values: Words that it may be; none of a number, a flag, or text of a form of its own.
    """

    help: str = ""
    nargs: int | str | None = None
    values: Values = []


class CommandEntry(msgspec.Struct, omit_defaults=True):
    """A command.

    Attributes:
        summary: Line about it.
        arguments: Its arguments by their names, with a space between those of the same.
        commands: Commands of its own, by name.
    """

    summary: str
    arguments: dict[str, Argument] = {}
    commands: dict[str, CommandEntry] = {}


def read() -> dict[str, CommandEntry]:
    """The table as it stands in the file."""
    return msgspec.json.decode(TABLE.read_bytes(), type=dict[str, CommandEntry])


def text() -> str:
    """The file, made of the commands of today."""
    from imagexplain.cli.parsers import command_parsers

    table = {name: _entry(each) for name, each in command_parsers().items()}
    return msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n"


def _entry(command: CommandParser) -> CommandEntry:
    arguments = {
        " ".join(each.option_strings or [each.dest]): Argument(
            command.help_of(each), each.nargs, _values(each, command.module)
        )
        for each in command.arguments()
        if each.option_strings or not command.commands  # the word after a command with its own is one of those
    }
    commands = {name: _entry(each) for name, each in command.commands.items()}
    return CommandEntry(command.summary, arguments, commands)


def _values(argument: argparse.Action, module: str) -> Values:
    if argument.choices is not None:
        return [str(choice) for choice in argument.choices]
    if argument.nargs == 0:
        return []
    if argument.dest in KINDS and not module.startswith("training."):  # which take models of timm, not served ones
        return KINDS[argument.dest]
    return "files" if argument.type in (None, str, Path) else []  # text, too: of a photo, a folder, an archive


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    if parser.parse_args(arguments).write:
        TABLE.write_text(text(), encoding="utf-8")
    else:
        print(text(), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
