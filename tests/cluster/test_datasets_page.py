"""The page of data sets, from top to bottom on a folder of two photos."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from imagexplain.cluster.table import SCHEMA
from imagexplain.ops.server import ROOT
from tests.pages import blocks, rows
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_timm

PAGE = ROOT / "docs" / "datasets.md"


def test_the_page_from_top_to_bottom(tmp_path: Path) -> None:
    for name in ("photos", "resnet", "store"):
        (tmp_path / name).mkdir()
    archived(tmp_path / "store", write_timm(tmp_path / "resnet", "resnet"), "resnet")
    for seed in range(2):
        (tmp_path / "photos" / f"{seed}.png").write_bytes(coarse_png(seed))
    shell, python = (
        [block.code for block in blocks(PAGE) if block.language == language] for language in ("sh", "python")
    )
    code = "\n".join(shell).replace("--model resnet", "--model resnet --store store")
    command = f'imagexplain() {{ "{sys.executable}" -m imagexplain "$@"; }}\n{code}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 images, 0 of them errors" in done.stdout and (tmp_path / "results" / "summary.html").is_file()
    for code in python:
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_the_columns_are_those_of_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("| column | |")[2].partition("\n\n")[0]
    named = [name.strip(" `") for row in rows(text) for name in row[0].split(",")]
    assert named == SCHEMA.names
