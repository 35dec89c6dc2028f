"""Debian's programs around the server, which `make setup-ops` installs."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def program(name: str) -> str:
    """The path of a program; where tests must not be left out, its absence is a failure."""
    found = shutil.which(name)
    if found is None:
        leave_out = pytest.fail if os.environ.get("CI") else pytest.skip
        leave_out(f"{name} is not installed: make setup-ops")
    return str(found)


def run(name: str, *arguments: str) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
