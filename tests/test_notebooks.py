"""The notebooks that need no server, run from top to bottom; what is kept of all of them; and their kernel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from imagexplain.ops.server import ROOT
from scripts.execute_notebooks import FOLDER, METADATA, clean, read
from tests.notebooks import differences, machine_paths, rerun, same

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ALONE = ("how_it_works", "your_own_model")
MAX_BYTES = 600_000


def test_the_notebooks_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text("utf-8")
    assert {path.name for path in NOTEBOOKS} == set(re.findall(r"\.\./notebooks/(\w+\.ipynb)", page))
    assert {path.stem for path in NOTEBOOKS} == {*ALONE, "example_attributions"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_tells_nothing_of_a_machine(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    assert notebook == clean(notebook), "make notebooks"
    assert list(machine_paths(notebook)) == []
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)


@pytest.mark.parametrize("name", ALONE)
def test_a_notebook_runs_and_says_what_it_said(name: str, tmp_path: Path) -> None:
    assert differences(*rerun(name, tmp_path)) == []
    assert list(tmp_path.iterdir()) == [], "it writes nothing"


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        ("score 3.48, 30%", "score 3.47,  31%", True),
        ("score 3.48", "score 3.42", True),
        ("score 3.48", "score 3.38", False),
        ("score 3.48", "scores 3.48", False),
        ("-0.000", "+0.000", True),
        ("-0.25", "+0.25", False),
        ("1.2e-07", "3.1e-07", False),
        ("ten 11,603", "ten 11,700", True),
        ("1 2", "1 2 3", False),
    ],
)
def test_texts_are_compared_by_words_and_numbers(one: str, two: str, equal: bool) -> None:
    assert same(one, two) is equal


def test_the_kernel_is_registered_by_the_command_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text("utf-8")
    arguments = '-m ipykernel install {} --name imagexplain --display-name "Python (imagexplain)"'
    assert f".venv/bin/python {arguments.format('--user')}" in " ".join(page.split())
    made = subprocess.run(["make", "-n", "kernel"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert arguments.format("--user") in made
    command = f'"{sys.executable}" {arguments.format(f"--prefix {tmp_path}")}'
    subprocess.run(command, shell=True, check=True, capture_output=True, timeout=120)
    kernel = json.loads((tmp_path / "share/jupyter/kernels/imagexplain/kernel.json").read_text("utf-8"))
    assert kernel["argv"][0] == sys.executable
    assert kernel["display_name"] == METADATA["kernelspec"]["display_name"]
