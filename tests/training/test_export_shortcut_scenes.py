from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from training.export_shortcut_scenes import Part, export
from training.scenes import SceneSettings
from training.shortcut_scenes import LABELS, shortcut_scene

SMALL = SceneSettings(size=(40, 48))
PARTS = {"train": Part(6, 1.0, masks=False), "pool": Part(6, 0.5), "test": Part(12, 1 / 6)}


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def test_folders_masks_and_conflicts_are_those_of_the_scenes(tmp_path: Path) -> None:
    export(tmp_path, 20, SMALL, PARTS)
    with (tmp_path / "conflicting.csv").open(encoding="utf-8", newline="") as text:
        said = {row["image"]: row["conflicting"] for row in csv.DictReader(text)}
    assert len(said) == 12
    for place, (name, part) in enumerate(PARTS.items()):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(LABELS)
        for index in range(part.count):
            drawn = shortcut_scene(20 + place, index, part.strength, SMALL)
            image = f"{LABELS[drawn.label]}/{index:06d}.png"
            assert np.array_equal(pixels(tmp_path / name / image), drawn.scene.image)
            if name == "test":
                assert said[image] == ("true" if drawn.conflicting else "false")
            if part.masks:
                values = pixels(tmp_path / "masks" / name / image)
                deciding = next(each.mask for each in drawn.scene.instances if each.deciding)
                assert np.array_equal(values == 2, deciding)
                assert np.array_equal(values == 1, ~np.any([each.mask for each in drawn.scene.instances], axis=0))
    assert not (tmp_path / "masks" / "train").exists()
    assert json.loads((tmp_path / "masks" / "pool" / "labels.json").read_text())["1"] == "background"
