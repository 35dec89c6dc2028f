"""Photos that a command line names: files, folders, patterns, and lists of files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from imagexplain.client import InputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
"""Ends of the names of images in a folder; formats that the server does not take are its to refuse."""
LISTS = {".txt", ".lst"}
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class NamedPhoto:
    """A photo's file, and the name that no other of the photos has: its path below the folder that all are in."""

    file: Path
    name: str


def is_one(arguments: Sequence[str]) -> bool:
    """Tell whether the command line names a single photo by its file."""
    (first, *others) = arguments
    if others or first == STANDARD_INPUT:
        return False
    path = Path(first)
    return not path.is_dir() and path.suffix.lower() not in LISTS and (path.exists() or not glob.has_magic(first))


def gather(arguments: Sequence[str], out: Path, stdin: TextIO = sys.stdin) -> list[NamedPhoto]:
    """The photos that the arguments name, each once, in their order; a folder's and a pattern's are sorted.

    Args:
        arguments: Files, folders with all that is below them, patterns with ``**`` for folders of any depth, files of
            names (.txt, .lst), and ``-`` for names on the standard input, one on a line.
        out: Folder of answers, in which no photos are looked for.
        stdin: Source of names for ``-``.

    Raises:
        InputError: no photos, or an argument that names nothing.
    """
    found: dict[str, str] = {}  # file → folder that was named
    for argument in arguments:
        for file, root in _named(argument, _absolute(out), stdin):
            found.setdefault(_absolute(file), _absolute(root))
    if not found:
        wanted = f"wanted files, or folders of images ({', '.join(sorted(SUFFIXES))})"
        raise InputError(f"{wanted}, got none in {', '.join(arguments)}")
    base = os.path.commonpath(found.values())
    return [NamedPhoto(_shown(file), Path(file).relative_to(base).as_posix()) for file in found]


def _named(argument: str, out: str, stdin: TextIO) -> Iterator[tuple[str, str]]:
    """Each file that an argument names, and the folder that is its root."""
    path = Path(argument)
    if argument == STANDARD_INPUT:
        yield from _listed(stdin.read())
    elif path.is_dir():
        files = sorted(_below(argument, out))
        yield from ((file, argument) for file in files)
    elif path.exists() and path.suffix.lower() in LISTS:
        try:
            yield from _listed(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: wanted a list of files: {error}") from None
    elif path.exists():
        yield argument, os.path.dirname(argument)  # noqa: PTH120
    elif glob.has_magic(argument):
        files = sorted(file for file in glob.glob(argument, recursive=True) if Path(file).is_file())  # noqa: PTH207
        if not files:
            raise InputError(f"{argument}: no files are named so")
        parts = Path(argument).parts
        plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        yield from ((file, str(Path(*parts[:plain]))) for file in files)
    else:
        raise InputError(f"{argument}: no such file or folder")


def _absolute(path: str | os.PathLike[str]) -> str:
    """The whole path; links are photos of their own and stay."""
    return os.path.abspath(path)  # noqa: PTH100


def _listed(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if name := line.strip():
            yield name, os.path.dirname(name)  # noqa: PTH120


def _below(folder: str, out: str) -> Iterator[str]:
    """The images of a folder and of those within it, but for hidden ones and the folder of answers."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and _absolute(Path(parent, name)) != out]
        for name in files:
            if name[0] != "." and Path(name).suffix.lower() in SUFFIXES:
                yield str(Path(parent, name))


def _shown(file: str) -> Path:
    """A file as a person would name it: from where the command runs, if it is below."""
    path = Path(file)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
