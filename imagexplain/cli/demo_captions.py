"""The captioners' part of the demonstration: one scene under two graphs, and which region decided each word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from imagexplain.archive.spec import in_file_name
from imagexplain.client import Client
from imagexplain.plain_text import printable
from imagexplain.progress import say
from training.captioning.named_scenes import named_scene

SEED, INDEX = 7, 3


def draw(folder: Path) -> tuple[Path, list[Path]]:
    """Draw a scene that no model was trained on, and two graphs over it; returns their files."""
    scene = named_scene(SEED, INDEX)
    photo = folder / "captions_scene.png"
    Image.fromarray(scene.image).save(photo)
    first, second = ([one.box.x, one.box.y, one.box.width, one.box.height] for one in scene.objects[:2])
    graphs: list[dict[str, Any]] = [
        {"objects": [{"box": first, "attributes": 2}]},
        {"objects": [{"box": second, "attributes": 1}, {"box": first}], "relationships": [[0, 1]]},
    ]
    files = [folder / f"captions_graph_{number}.json" for number in range(1, len(graphs) + 1)]
    for file, graph in zip(files, graphs, strict=True):
        file.write_text(json.dumps(graph) + "\n", encoding="utf-8")
    return photo, files


def show(client: Client, models: Sequence[str], out: Path) -> dict[str, Path]:
    """Have captioners caption the scene under both graphs, and draw what decided each word.

    Returns:
        The pictures, by their captions.
    """
    photo, graphs = draw(out)
    say(f"\nphoto: {photo}")
    pictures: dict[str, Path] = {}
    for model in models:
        for graph in graphs:
            files = {"graph": graph}
            path = f"explanations/{model}"
            (found,) = client.photo(path, photo, accept="application/json", files=files).json()["graphs"]
            say(f"{model}, {graph.name}: {printable(found['caption'])}")
            labels = [f"{printable(word['word'])} ← {word['largest_node']['label']}" for word in found["words"]]
            say(f"  {', '.join(labels)}")
            file = out / f"{graph.stem}_{in_file_name(model)}.png"
            file.write_bytes(client.photo(path, photo, accept="image/png", files=files).body)
            pictures[f"{model}, graph {graph.stem.rpartition('_')[2]}"] = file
            say(f"  {file}")
    return pictures


def whole_photo(photo: Path, file: Path) -> Path:
    """Write a graph of the whole photo as its only object, which any captioner answers; returns its file."""
    with Image.open(photo) as image:
        width, height = image.size
    file.write_text(json.dumps({"objects": [{"box": [0, 0, width, height]}]}) + "\n", encoding="utf-8")
    return file
