"""Parsers of commands read from their sources: a command that imports torch is not imported to complete its options."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from imagexplain.checkout import ROOT

FIELDS = ("action", "choices", "help", "metavar", "nargs")
"""Arguments of ``add_argument`` that matter to completion."""


@dataclass(frozen=True)
class Source:
    """The source of a module.

    Attributes:
        tree: Source, parsed.
    """

    tree: ast.Module

    @classmethod
    def of(cls, module: str) -> Source:
        """The source of a module; the packages above it, but not itself, are imported."""
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
        package, _, _ = module.rpartition(".")
        found = PathFinder.find_spec(module, import_module(package).__path__)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return cls(ast.parse(Path(found.origin).read_text(encoding="utf-8")))

    @cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """Module and name there of each name that is imported from somewhere."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """Expression of each name that is assigned at the top."""
        found: dict[str, ast.expr] = {}
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found[name] = value
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    found[name] = value
        return found

    def has_commands(self) -> bool:
        """Tell whether a parser in it has commands of its own."""
        return any(isinstance(node, ast.Attribute) and node.attr == "add_subparsers" for node in ast.walk(self.tree))

    def arguments(self, part: ast.AST | None = None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Yield names and fields of each ``add_argument`` in a part of it, or the whole, as far as they are constants.

        Functions that a part calls, with names that begin with ``add_``, are looked into.
        """
        for node in ast.walk(part or self.tree):
            match node:
                case ast.Call(func=ast.Attribute(attr="add_argument")):
                    names = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
                    stated = {each.arg: self.constant(each.value) for each in node.keywords if each.arg in FIELDS}
                    if names:
                        yield names, {name: value for name, value in stated.items() if name and value is not None}
                case ast.Call(func=ast.Name(id=name)) if name.startswith("add_"):
                    module, original = self.imported.get(name, (None, name))
                    if module is None and part is None:
                        continue  # the whole is looked at anyway
                    other = Source.of(module) if module else self
                    for found in other.tree.body:
                        if isinstance(found, ast.FunctionDef) and found.name == original:
                            yield from other.arguments(found)

    def named(self, name: str) -> Any:
        """The value of a constant by its name; None where it is none."""
        return self.constant(ast.Name(name))

    def constant(self, node: ast.expr) -> Any:
        """The value of an expression of constants and their names; None for any other."""
        match node:
            case ast.Name(id=name) if name in self.assigned:
                return self.constant(self.assigned[name])
            case ast.Name(id=name) if self.imported.get(name, ("",))[0].partition(".")[0] in PACKAGES:
                module, original = self.imported[name]
                return Source.of(module).named(original)
            case ast.Attribute(attr=argparse.BooleanOptionalAction.__name__):
                return argparse.BooleanOptionalAction
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                whole: list[Any] = []
                for each in parts:
                    value = self.constant(each.value if isinstance(each, ast.Starred) else each)
                    whole += value or () if isinstance(each, ast.Starred) else [value]
                return None if None in whole else tuple(whole)
            case ast.Dict(keys=keys):
                return self.constant(ast.Tuple([key for key in keys if key is not None]))
        try:
            return ast.literal_eval(node)
        except ValueError:
            return None


PACKAGES = ("imagexplain", "debugging", "evaluation", "training")
"""Packages into which constants are followed."""


def parser_of(module: str, prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command's module.

    It is made of what the source says. A module with commands of its own is quick to import, and has a function
    ``parser(prog)``.
    """
    source = Source.of(module)
    if source.has_commands():
        made: argparse.ArgumentParser = import_module(module).parser(prog)
        return made
    made = argparse.ArgumentParser(prog=prog, conflict_handler="resolve")
    for names, fields in source.arguments():
        made.add_argument(*names, **fields)
    return made
