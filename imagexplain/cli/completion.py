"""Print what a shell needs to complete these commands, their options, and the names of models and methods.

eval "$(imagexplain completion bash)"                                       in ~/.bashrc
eval "$(imagexplain completion zsh)"                                        in ~/.zshrc, after compinit
imagexplain completion fish > ~/.config/fish/completions/imagexplain.fish   once
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from imagexplain.checkout import ROOT
from imagexplain.cli import COMMANDS

SHELLS = ("bash", "zsh", "fish")

FIELDS = ("action", "choices", "help", "metavar", "nargs")
"""Arguments of ``add_argument`` that matter to completion."""


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


VALUES: Mapping[str, Callable[[], Iterable[str]]] = {
    "model": models,
    "models": models,
    "method": methods,
    "methods": methods,
}
"""Values of arguments of these names that have no choices of their own."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("shell", choices=SHELLS)
    return made


def parser_of(module: str, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command's module, which is not imported where that would take long.

    The calls of ``add_argument`` are read from its source, and from that of imported functions whose names begin with
    ``add_``. A module with commands of its own is quick to import, and has a function ``parser(prog)``.
    """
    tree = _tree(module)
    if any(isinstance(node, ast.Attribute) and node.attr == "add_subparsers" for node in ast.walk(tree)):
        made: argparse.ArgumentParser = import_module(module).parser(prog)
        return made
    made = argparse.ArgumentParser(prog=prog, conflict_handler="resolve")
    for names, fields in _arguments(tree, tree):
        made.add_argument(*names, **fields)
    return made


def _tree(module: str) -> ast.Module:
    """The source of a module, parsed; the packages above it, but not itself, are imported."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    package, _, _ = module.rpartition(".")
    found = PathFinder.find_spec(module, import_module(package).__path__)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(module)
    return ast.parse(Path(found.origin).read_text(encoding="utf-8"))


def _arguments(part: ast.AST, tree: ast.Module) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield names and fields of each ``add_argument`` in a part of a source, as far as they are constants."""
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(part):
        match node:
            case ast.Call(func=ast.Attribute(attr="add_argument")):
                names = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
                stated = {each.arg: _constant(each.value, constants) for each in node.keywords if each.arg in FIELDS}
                if names:
                    yield names, {name: value for name, value in stated.items() if name and value is not None}
            case ast.Call(func=ast.Name(id=name)) if name.startswith("add_"):
                module, original = imported.get(name, (None, name))
                other = _tree(module) if module else tree
                for found in other.body if other is not part else ():
                    if isinstance(found, ast.FunctionDef) and found.name == original:
                        yield from _arguments(found, other)


def _constant(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    """The value of an expression that is a constant, or the name of one; else None."""
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    if isinstance(node, ast.Attribute) and node.attr == argparse.BooleanOptionalAction.__name__:
        return argparse.BooleanOptionalAction
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


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
