"""The parsers of all commands, and of the commands within them: for the commands' page, and for what completes them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from imagexplain.checkout import ROOT
from imagexplain.cli import COMMANDS


@dataclass(frozen=True)
class CommandParser:
    """The parser of a command.

    Attributes:
        parser: Parser with which the command reads its arguments.
        summary: Line about it in the help of what it stands in.
        module: Name of the module that it comes from.
        commands: Commands of its own, by name.
    """

    parser: argparse.ArgumentParser
    summary: str
    module: str
    commands: Mapping[str, CommandParser]

    def arguments(self) -> Iterator[argparse.Action]:
        """Yield its arguments, without --help, which all have, and those that its help does not show."""
        for action in self.parser._actions:
            unlisted = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
            if not unlisted and action.help != argparse.SUPPRESS:
                yield action

    def help_of(self, argument: argparse.Action) -> str:
        """The words about an argument, in one line; none where there are none."""
        return " ".join(self.parser._get_formatter()._expand_help(argument).split()) if argument.help else ""


def command_parsers() -> dict[str, CommandParser]:
    """All commands by name. Each is imported for it, from a checkout, which takes seconds."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return {name: _of_module(each.module, f"imagexplain {name}", each.summary) for name, each in COMMANDS.items()}


def _of_module(module: str, prog: str, summary: str) -> CommandParser:
    """The command of a module with ``parser(prog)``; those of its own are subparsers, or modules in its STEPS."""
    imported = import_module(module)
    own = _of_parser(imported.parser(prog), summary, module)
    steps = getattr(imported, "STEPS", None)
    if not isinstance(steps, Mapping):
        return own
    commands = {name: _of_module(step.module, f"{prog} {name}", step.summary) for name, step in steps.items()}
    return CommandParser(own.parser, summary, module, commands)


def _of_parser(parser: argparse.ArgumentParser, summary: str, module: str) -> CommandParser:
    commands: dict[str, CommandParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
            for name, each in action.choices.items():
                commands[name] = _of_parser(each, summaries.get(name, ""), module)
    return CommandParser(parser, summary, module, commands)
