"""Runs the code of the README and of docs/: every shell and Python block that does not start or stop the server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from imagexplain.ops.server import ROOT
from tests.conftest import Served
from training.scenes import SceneSettings, scene
from training.train_classifier import HELD_OUT_SEED

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(sh|python)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
]
RUN_ELSEWHERE = ("make demo", "make test", "make archives", "make stop", "scripts/accuracy.py")
"""Commands that other tests run: the server's life, builds with a user's own files, and a user's own data."""


def runnable() -> list[tuple[str, str]]:
    return [(kind, code) for kind, code in BLOCKS if not any(command in code for command in RUN_ELSEWHERE)]


@pytest.fixture
def checkout(tmp_path: Path, served: Served) -> Path:
    """What the README's reader has: the scripts, a running server's key file, and a photo."""
    for name in ("scripts", "imagexplain"):  # which resolve their own path, and look for run/ there
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("handlers", "training", "archive_specs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "run").mkdir()
    shutil.copy(Path(served.server.run) / "key_file.json", tmp_path / "run")
    shutil.copy(Path(served.server.run) / "server.json", tmp_path / "run")
    image = Image.fromarray(scene(HELD_OUT_SEED, 1, SceneSettings(size=(240, 320))).image)
    image.save(tmp_path / "photo.jpg", quality=95)
    return tmp_path


def test_there_is_something_to_run() -> None:
    assert {kind for kind, _ in runnable()} == {"sh", "python"}


@pytest.mark.parametrize(("kind", "code"), runnable(), ids=lambda value: value.strip().splitlines()[0][:50])
def test_the_code_runs(checkout: Path, served: Served, kind: str, code: str) -> None:
    if "curl" in code and shutil.which("curl") is None:
        pytest.skip("no curl here")
    for port, address in (("8080", served.server.inference), ("8082", served.server.metrics.removesuffix("/metrics"))):
        code = code.replace(f"http://127.0.0.1:{port}", address)
    command = ["bash", "-euo", "pipefail", "-c", code] if kind == "sh" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
