"""Docstrings: the rules for their words, and the examples, which run as they stand."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

import imagexplain
from imagexplain.checkout import ROOT

PACKAGE = "imagexplain"
PARTS = sorted(f"{PACKAGE}/{path.parent.name}" for path in (ROOT / PACKAGE).glob("*/__init__.py"))
FOLDERS = ("benchmarks", "debugging", "docsite", "evaluation", "handlers", "scripts", "training", PACKAGE, *PARTS)

SHOWN = {
    "imagexplain.attribution.captum_adapter.IntegratedDirectionalGradients",
    "imagexplain.attribution.captum_adapter.IntegratedGradients",
    "imagexplain.attribution.groups.directional.group_scores",
    "imagexplain.attribution.groups.families.family",
    "imagexplain.attribution.paths.path_integral.integrate",
    "imagexplain.attribution.paths.quadrature.quadrature",
}
"""Names that docs/library.md imports from further within the package."""

CLAUSE = "what|whether|how|which|where|when|why|if|as|of|to|for|from|in|by|with|without|within|at|on|that|those|these"
"""Words that begin no noun phrase and no sentence in the imperative."""

FIRST_LINE = re.compile(rf"({CLAUSE}|called|is|are|its?)\b", re.IGNORECASE)
ARGUMENT = re.compile(
    rf"({CLAUSE}|see|only|also|such|not|between|called|taken|used|is|are|keep|leave|multiply|resize)\b(?!-)",
    re.IGNORECASE,
)
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Examples?):$")
ENTRY = re.compile(r" {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(source: str) -> Iterator[tuple[str, int, str]]:
    """Yield dotted name, line and text of every docstring in a module."""

    def within(node: ast.AST, name: str) -> Iterator[tuple[str, int, str]]:
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield name, node.body[0].lineno, text
        for child in ast.iter_child_nodes(node):
            own = getattr(child, "name", "") if isinstance(child, Documented) else ""
            yield from within(child, f"{name}.{own}".strip("."))

    return within(ast.parse(source), "")


def faults(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and words of every first line and every argument that break the rules."""
    for name, line, text in documented(source):
        lines = text.splitlines()
        if FIRST_LINE.match(lines[0]) or SECTION.match(lines[0]):
            yield line, name, lines[0]
        section = ""
        for number, words in enumerate(lines, line):
            if words and not words.startswith(" "):
                section = words if SECTION.match(words) else ""
            entry = ENTRY.match(words) if section in ("Args:", "Attributes:") else None
            if entry and ARGUMENT.match(entry[2]):
                yield number, f"{name}({entry[1]})", entry[2]


def examples(folder: Path) -> dict[str, str]:
    """The docstrings that hold examples, by the dotted name of what they document."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        module = ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        for name, _, text in documented(file.read_text(encoding="utf-8")):
            if ">>> " in text:
                found[f"{module}.{name}".rstrip(".")] = text
    return found


EXAMPLES = examples(ROOT / PACKAGE) | examples(ROOT / "debugging")


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_say_first_what_a_thing_is(folder: str) -> None:
    """A first line opens with an imperative verb or a noun, an argument's with a noun: CONTRIBUTING.md."""
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name or 'module'}: {words}"
        for file in sorted((ROOT / folder).glob("*.py" if folder == PACKAGE else "**/*.py"))
        for line, name, words in faults(file.read_text(encoding="utf-8"))
    ]
    if found:
        pytest.fail(f"{len(found)} open with no noun and no verb:\n" + "\n".join(found), pytrace=False)


def test_a_fault_is_found_with_its_place() -> None:
    source = '''
class Light:
    """How bright it is.

    Attributes:
        sigma: Width of the lamp.
        seed: of the noise.
        where, when: Place and time.
    """

    def on(self):
        """Turn it on."""

    def off(self):
        """
        Args:
            now: whether it is off at once.
        """
'''
    assert list(faults(source)) == [
        (3, "Light", "How bright it is."),
        (7, "Light(seed)", "of the noise."),
        (15, "Light.off", "Args:"),
        (16, "Light.off(now)", "whether it is off at once."),
    ]


def test_every_public_name_has_an_example() -> None:
    public = {getattr(imagexplain, name) for name in imagexplain.__all__ if name != "__version__"}
    missing = {f"{each.__module__}.{each.__name__}" for each in public} | SHOWN
    missing -= EXAMPLES.keys()
    assert not missing


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_what_it_says(name: str) -> None:
    parsed = doctest.DocTestParser().get_doctest(EXAMPLES[name], {}, name, None, 0)
    assert any(each.want for each in parsed.examples), "wanted an example with a result"
    said: list[str] = []
    torch.manual_seed(0)
    doctest.DocTestRunner(verbose=False).run(parsed, out=said.append)
    assert not said, "".join(said)


def test_examples_are_of_what_can_be_imported() -> None:
    """A name among them leads to the very object that has the docstring."""
    for name, text in EXAMPLES.items():
        module, _, own = name.rpartition(".")
        documentation = getattr(import_module(module), own).__doc__
        assert documentation is not None
        assert documentation.strip().startswith(text.splitlines()[0])
