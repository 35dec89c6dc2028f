"""The package's source: every function of a model is isolated, and asks the model through ``class_scores``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest

import imagexplain.attribution as library

FILES = sorted(Path(library.__file__).parent.rglob("*.py"))
PARTS = {
    "attention_capture.attention_layers",
    "coalitions.coalition_scores",
    "forward.class_scores",
    "layers.scores_and_activation",
    "path_integral.score_gradients",
    "partial_forward.split_at",
    "several_targets.target_gradients",
    "targets.classes_and_scores",
}
"""What isolated methods are made of; they ask the model in the state that these have brought it to."""


def _functions(file: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("name", [*library.METHODS, "smooth"])
def test_every_method_is_isolated(name: str) -> None:
    method = getattr(library, name)
    assert "model" in signature(method).parameters
    assert method.__wrapped__.__name__ == name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_model_is_called_elsewhere(file: Path) -> None:
    """But for the doorway itself, and for what stands for a model and is called through it."""
    called = {
        f"{function.name}, line {node.lineno}"
        for function in _functions(file)
        if function.name not in ("scores_of_copy", "contrast")
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("model", "network")
    }
    assert not called


def test_public_functions_that_ask_a_model_are_isolated() -> None:
    """Those are the ones that call ``class_scores`` themselves, unless they are parts of methods."""
    found = {
        f"{file.stem}.{node.name}"
        for file in FILES
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and _asks(node)
        if "isolated" not in {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
    }
    assert found == PARTS


def _asks(function: ast.FunctionDef) -> bool:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return not {call.id for call in calls if isinstance(call, ast.Name)}.isdisjoint({"class_scores", "scores_of_copy"})
