"""Print what a shell needs to complete these commands, their options, and the names of models and methods.

eval "$(imagexplain completion bash)"                                       in ~/.bashrc
eval "$(imagexplain completion zsh)"                                        in ~/.zshrc, after compinit
imagexplain completion fish > ~/.config/fish/completions/imagexplain.fish   once
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from imagexplain.checkout import ROOT
from imagexplain.cli import completion_table
from imagexplain.cli.completion_table import Argument, CommandEntry

SHELLS = ("bash", "zsh", "fish")


def models() -> list[str]:
    """Names of the models that the server of this checkout serves; where none runs, those of the store."""
    try:
        return list(json.loads((ROOT / "run" / "server.json").read_text())["models"])
    except (OSError, ValueError, KeyError, TypeError):
        return sorted(path.stem.replace("@", "/") for path in (ROOT / "model_store").glob("*.mar"))


def methods() -> list[str]:
    """Names of all attribution methods."""
    from imagexplain.attribution.registry import METHODS

    return list(METHODS)


KINDS: Mapping[str, Callable[[], Iterable[str]]] = {"models": models, "methods": methods}
"""Words of a kind that are looked up once a shell asks for them."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("shell", choices=SHELLS)
    return made


def answer() -> None:
    """Answer a shell that asks for words, as argcomplete's environment says, and end this process."""
    import argcomplete

    argcomplete.autocomplete(completing(), always_complete_options="long")


def completing() -> argparse.ArgumentParser:
    """A parser with the commands and arguments of the table: for their words alone, without types and defaults."""
    made = argparse.ArgumentParser(prog="imagexplain")
    made.add_argument("--version", action="store_true", help="show the version")
    _add_commands(made, completion_table.read())
    return made


def _add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, CommandEntry]) -> None:
    adding = parser.add_subparsers(metavar="COMMAND")
    for name, entry in commands.items():
        command = adding.add_parser(name, help=_literal(entry.summary))
        for names, argument in entry.arguments.items():
            _add_argument(command, names.split(), argument)
        if entry.commands:
            _add_commands(command, entry.commands)


def _add_argument(parser: argparse.ArgumentParser, names: Sequence[str], argument: Argument) -> None:
    if argument.nargs == 0:
        parser.add_argument(*names, action="store_true", help=_literal(argument.help))
        return
    added = parser.add_argument(*names, nargs=argument.nargs, help=_literal(argument.help))
    values = argument.values
    if values != "files":  # argcomplete's own
        vars(added)["completer"] = lambda **_: KINDS[values]() if isinstance(values, str) else values


def _literal(text: str) -> str:
    """Words of a help, in which a percent sign is one."""
    return text.replace("%", "%%")


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["imagexplain"], shell=parser(prog).parse_args(arguments).shell))
    return 0
