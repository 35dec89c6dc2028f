"""Notebooks as pages: their words, code and outputs as they are kept, pictures beside them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docsite import links
from imagexplain.checkout import ROOT

PICTURES = {"image/png": "png", "image/jpeg": "jpg"}


def pages(folder: Path = ROOT / "notebooks") -> dict[str, str | bytes]:
    """The pages' text and their pictures by their places on the site."""
    made: dict[str, str | bytes] = {}
    for file in sorted(folder.glob("*.ipynb")):
        pictures: dict[str, bytes] = {}
        text = "\n\n".join(_cells(json.loads(file.read_text("utf-8")), file.stem, pictures))
        made[f"notebooks/{file.stem}.md"] = links.rewritten(text, f"notebooks/{file.name}") + "\n"
        made |= {f"notebooks/{name}": content for name, content in pictures.items()}
    return made


def _cells(notebook: dict[str, Any], name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """Markdown of each cell and output; the pictures are added to those given."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            yield source
        elif cell["cell_type"] == "code" and source:
            yield f"```python\n{source}\n```"
            for output in cell["outputs"]:
                yield from _output(output, name, pictures)


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    data = output.get("data", {})
    for media, suffix in PICTURES.items():
        if media in data:
            file = f"{name}_{len(pictures) + 1}.{suffix}"
            pictures[file] = base64.b64decode("".join(data[media]))
            yield f"![Output of the cell above]({file})"
            return
    if text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
        yield f"```text\n{text}\n```"
