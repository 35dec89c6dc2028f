"""Networks of a user's own code: a Python file or package, with a class or function that makes the network.

Such a file is code like the service's own: building its archive and loading it run it, with all that it may do. It is
imported under a name of its own, from where it lies, and nothing is put on Python's path: what it imports is what the
host has installed, and a package's own files by relative imports.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.state_dict import PREFIXES

PACKAGE_FILE = "__init__.py"
_MAX_LISTED = 8


def build(path: Path, factory: str | None, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network of a user's own code, in ``eval()``. The code is run.

    Args:
        path: Python file, or folder of a package.
        factory: Name of the class or function that makes the network; None for the only module class of the file.
        state: Tensors of the checkpoint, whose names without the prefixes that trainers add fit too.
        arguments: Arguments of the class or function, by name.

    Raises:
        ArgumentError: naming file and line: imports that the host has not, code that raises, no such factory.
        CheckpointError: listing every missing, unexpected and wrongly shaped tensor.
    """
    check_imports(path)
    make = _factory(load(path), path, factory)
    try:
        network = make(**arguments)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise ArgumentError("arguments", f"{make.__name__}({given}): {_told(error, path)}") from error
    if not isinstance(network, nn.Module):
        wanted = f"wanted one that makes a torch.nn.Module, {make.__name__} gave a {type(network).__name__}"
        raise ArgumentError("module", f"factory: {path.name}: {wanted}")
    prefix = _prefix(network.state_dict())
    stripped = bool(prefix) and not any(name.startswith(prefix) for name in state)
    return checkpoint.fill(network, state, lambda name: name.removeprefix(prefix) if stripped else name)


def load(path: Path) -> ModuleType:
    """Import a file or package under a name that follows from its content; raises like :func:`build`."""
    name = f"_own_module_{_digest(path)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    package = path.is_dir()
    spec = spec_from_file_location(
        name, path / PACKAGE_FILE if package else path, submodule_search_locations=[str(path)] if package else None
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # where relative imports and dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[loaded]
        if not isinstance(error, Exception):
            raise
        raise ArgumentError("module", f"{path.name}: {_told(error, path)}") from error
    return module


def check_imports(path: Path) -> None:
    """Check each import of a file or package without running it.

    An import within ``try`` and one for a type checker alone are the file's own to care for.

    Raises:
        ArgumentError: naming file and line: a module that the host has not, a file beside the given one, or a syntax
            error.
    """
    faults = [fault for file in files(path) for fault in _faults(file, path)]
    if faults:
        more = f"; and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
        raise ArgumentError("module", "; ".join(faults[:_MAX_LISTED]) + more)


def files(path: Path) -> list[Path]:
    """Python files of a file or package, in order: all that an archive carries of it."""
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _digest(path: Path) -> str:
    digest = hashlib.sha256(str(path.resolve()).encode())
    for file in files(path):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _faults(file: Path, path: Path) -> Iterator[str]:
    shown = file.relative_to(path.parent)
    try:
        tree = ast.parse(file.read_bytes(), file.name)
    except (SyntaxError, ValueError) as error:
        yield f"{shown}, line {getattr(error, 'lineno', None) or 1}: {error.args[0]}"
        return
    for node in _imports(tree):
        where = f"{shown}, line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.level:
            if (fault := _relative(node, file, path)) is not None:
                yield f"{where}: {fault}"
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            top = name.partition(".")[0]
            if _is_installed(top):
                continue
            if (file.parent / f"{top}.py").is_file() or (file.parent / top).is_dir():
                yield f"{where}: {top} lies beside it: {_AS_PACKAGE}"
            else:
                yield f"{where}: wanted modules that this host has, {name} is not installed"


_AS_PACKAGE = (
    f"several files want the path of their folder, with an {PACKAGE_FILE} and relative imports (from .x import y)"
)


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that will be run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try) and node.handlers:
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from _imports(part)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for part in node.orelse:
                yield from _imports(part)
        else:
            yield from _imports(node)


def _relative(node: ast.ImportFrom, file: Path, path: Path) -> str | None:
    """Fault of a relative import, None for one that finds its file in the package."""
    said = f"from {'.' * node.level}{node.module or ''} import {node.names[0].name}"
    if not path.is_dir():
        return f"{said}: {_AS_PACKAGE}"
    folder = file.parent
    for _ in range(node.level - 1):
        folder = folder.parent
    if not folder.is_relative_to(path):
        return f"{said}: leads out of the package {path.name}"
    target = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
    if target.is_dir() or target.with_suffix(".py").is_file():
        return None
    return f"{said}: there is no {target.relative_to(path.parent)}.py"


def _is_installed(name: str) -> bool:
    try:
        return name in sys.builtin_module_names or find_spec(name) is not None  # which imports nothing
    except (ImportError, ValueError):
        return name in sys.modules


def _factory(module: ModuleType, path: Path, name: str | None) -> Any:
    own = {
        known: value
        for known, value in vars(module).items()
        if callable(value) and str(getattr(value, "__module__", "")).startswith(module.__name__) and known[:1] != "_"
    }
    if name is not None:
        made = getattr(module, name, None)
        if callable(made):
            return made
        raise ArgumentError("module", f"factory: wanted one of {path.name}'s {', '.join(own) or 'none'}, given {name}")
    classes = [value for value in own.values() if isinstance(value, type) and issubclass(value, nn.Module)]
    if len(classes) == 1:
        return classes[0]
    listed = ", ".join(own) or "none"
    wanted = f"{path.name}: wanted the name of the class or function that makes the network, one of {listed}"
    raise ArgumentError("module", f"factory: {wanted}")


def _prefix(names: Mapping[str, Any]) -> str:
    """Prefix of all names that the reader of a checkpoint takes for a trainer's, and removes."""
    prefix, rest = "", list(names)
    while rest and (found := next((p for p in PREFIXES if all(name.startswith(p) for name in rest)), None)):
        prefix, rest = prefix + found, [name.removeprefix(found) for name in rest]
    return prefix


def _told(error: Exception, path: Path) -> str:
    """Type and text of what a user's code raised, and the last line of its own that led there."""
    own = {str(file) for file in files(path)}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    where = f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"
