"""Run the notebooks from top to bottom, and keep them with their outputs and nothing else.

execute_notebooks.py
execute_notebooks.py notebooks/how_it_works.ipynb

notebooks/example_attributions.ipynb asks the running server (make serve); the others need none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from imagexplain.checkout import ROOT
from imagexplain.progress import say

FOLDER = ROOT / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python (imagexplain)", "language": "python", "name": "imagexplain"},
    "language_info": {"name": "python"},
}
"""All that a notebook says of itself: the kernel that `make kernel` registers."""
SECONDS = 600
"""Time that a cell may take."""


def read(path: Path) -> NotebookNode:
    """A notebook of the repository."""
    return nbformat.read(path, as_version=4)


def execute(notebook: NotebookNode, folder: Path, environment: Mapping[str, str] | None = None) -> NotebookNode:
    """Run a copy of a notebook in a folder with this Python and this checkout; returns it with its outputs, cleaned.

    Args:
        notebook: Notebook; left as it is.
        folder: Folder in which it runs and writes its files.
        environment: Variables beside this process's own.

    Raises:
        CellExecutionError: a cell that failed, with its traceback.
    """
    copy = nbformat.from_dict(notebook)
    copy["metadata"] = {}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    client = NotebookClient(
        copy,
        timeout=SECONDS,
        kernel_name="python3",
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    quiet = "ignore:IProgress not found"  # tqdm's, which timm imports: nothing here has bars
    client.execute(env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": quiet, **(environment or {})})
    return clean(copy)


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook that has of its metadata only what every checkout shares."""
    copy = nbformat.from_dict(notebook)
    copy["metadata"] = nbformat.from_dict(METADATA)
    for number, cell in enumerate(copy["cells"], 1):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output["metadata"] = {}
    return copy


def text_of(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """The text that each cell of code put out, with the cell's id: prints, results, the texts of pictures, errors."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            parts = [output.get("text", ""), output.get("data", {}).get("text/plain", ""), *output.get("traceback", [])]
            yield cell["id"], "".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="files (default: all of notebooks/)")
    given = parser.parse_args(arguments)
    failed = False
    for path in given.notebooks or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = execute(read(path), Path(folder))
            except CellExecutionError as error:
                say(f"{path.name}: {error}")
                failed = True
                continue
        nbformat.write(done, path)
        say(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
