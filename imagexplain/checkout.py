"""The checkout that the commands work on: its handlers, archive specs, TorchServe's settings and evaluation."""

from __future__ import annotations

from pathlib import Path

MARK = "archive_specs"
"""A folder that every checkout has at its top."""


def find_checkout(package: Path, here: Path) -> Path:
    """The checkout that holds the package; where it is installed apart from one, the directory that one works in."""
    around = package.parent
    return around if (around / MARK).is_dir() else here


ROOT = find_checkout(Path(__file__).resolve().parent, Path.cwd())
