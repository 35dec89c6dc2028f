"""Region files: the scene graphs of an image's regions, ``{region: {objects, relationships, phrase}}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import SceneGraph, read_region, write_region
from training.finetuning.whole_files import write_text


def read_regions(file: Path) -> dict[str, SceneGraph]:
    """Read the graphs of an image, by region.

    Raises:
        ArgumentError: a file or an entry that is none; names the file, the region and the field.
        FileNotFoundError: no such file.
    """
    return {region: parsed(file, region, entry) for region, entry in read_json(file).items()}


def read_entry(file: Path, region: str) -> SceneGraph:
    """Read the graph of one region; others may be faulty.

    Raises:
        ArgumentError: no such region, or one that is no graph.
        FileNotFoundError: no such file.
    """
    content = read_json(file)
    if region not in content:
        raise ArgumentError("region", f"wanted a region of {file}, got {region!r}")
    return parsed(file, region, content[region])


def write_regions(file: Path, graphs: Mapping[str, SceneGraph]) -> None:
    """Write the graphs of an image, by region."""
    entries = {region: write_region(graph) for region, graph in graphs.items()}
    write_text(file, json.dumps(entries, indent=1, ensure_ascii=False))


def parsed(file: Path, region: str, entry: Any) -> SceneGraph:
    """The graph of a region's entry; a fault names the file and the region."""
    try:
        return read_region(entry)
    except ArgumentError as error:
        raise ArgumentError(error.field, f"{error.message}, in region {region} of {file}") from None


def read_json(file: Path) -> dict[str, Any]:
    """Read an object of JSON.

    Raises:
        ArgumentError: another content.
        FileNotFoundError: no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArgumentError("file", f"wanted JSON in {file}: {error}") from None
    if not isinstance(content, dict):
        raise ArgumentError("file", f"wanted an object in {file}, got {type(content).__name__}")
    return content
