"""Print what a shell needs to complete these commands, their options, and the names of models and methods.

eval "$(imagexplain completion bash)"                                       in ~/.bashrc
eval "$(imagexplain completion zsh)"                                        in ~/.zshrc, after compinit
imagexplain completion fish > ~/.config/fish/completions/imagexplain.fish   once
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping

from imagexplain.checkout import ROOT
from imagexplain.cli import COMMANDS
from imagexplain.cli.parser_source import Source, parser_of

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


def formats() -> list[str]:
    """Names of the forms of answers."""
    return [*(Source.of("imagexplain.cli.forms").named("FORMS") or ()), "csv"]


VALUES: Mapping[str, Callable[[], Iterable[str]]] = {
    "model": models,
    "models": models,
    "method": methods,
    "methods": methods,
    "format": formats,
}
"""Values of arguments of these names that have no choices of their own."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("shell", choices=SHELLS)
    return made


def answer() -> None:
    """Answer a shell that asks for words, as argcomplete's environment says, and end this process."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(completing(words[1] if len(words) > 1 else ""), always_complete_options="long")


def completing(command: str) -> argparse.ArgumentParser:
    """The parser of all commands, in which one has its arguments."""
    whole = argparse.ArgumentParser(prog="imagexplain")
    whole.add_argument("--version", action="store_true", help="show the version")
    commands = whole.add_subparsers(metavar="COMMAND")
    for name, each in COMMANDS.items():
        commands.add_parser(name, help=each.summary, add_help=False)
    if command in COMMANDS:
        module = COMMANDS[command].module
        own = parser_of(module, f"imagexplain {command}")
        if not module.startswith("training."):  # whose models are not served
            _give_values(own)
        commands.choices[command] = own
    return whole


def _give_values(parser: argparse.ArgumentParser) -> None:
    """Let arguments complete the names of models and methods, in the parsers of subcommands, too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _give_values(each)
        elif action.choices is None and action.dest in VALUES:
            values = VALUES[action.dest]
            vars(action)["completer"] = lambda values=values, **_: values()


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["imagexplain"], shell=parser(prog).parse_args(arguments).shell))
    return 0
