"""Write scenes with a planted shortcut as folders of images by class, for `imagexplain debug` to be tried on.

python -m training.export_shortcut_scenes OUT --size 64

OUT/train, val and pool hold scenes whose background goes with the class, in the pool and in val less often; in OUT/test
they are independent. OUT/masks has a label map for each scene but those of train: background, object, distractor.
OUT/conflicting.csv says of which test scenes the background speaks for another class.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.scenes import SceneSettings
from training.shortcut_scenes import LABELS, TEXTURES, ShortcutScene, shortcut_scene, stacked

NAMES = {"1": "background", "2": "object", "3": "distractor"}
"""Names of the values of a label map."""


@dataclass(frozen=True)
class Part:
    """One folder of scenes.

    Attributes:
        count: Number of scenes, as many of each class if six divide it.
        strength: Probability, 0 … 1, that the background is the class's own.
        masks: Flag for label maps beside them.
    """

    count: int
    strength: float
    masks: bool = True


PARTS: Mapping[str, Part] = {
    "train": Part(3000, 0.97, masks=False),
    "val": Part(600, 0.8),
    "pool": Part(3000, 0.8),
    "test": Part(1200, 1 / len(TEXTURES)),
}
"""Folders by name. Each has a series of scenes of its own, by its place."""


def export(folder: Path, seed: int, settings: SceneSettings, parts: Mapping[str, Part] = PARTS) -> None:
    """Write all parts under a folder.

    Args:
        folder: Folder to write.
        seed: Number of the first part's series, the others follow.
        settings: Settings of the scenes.
        parts: Parts by name.

    Raises:
        ValueError: a negative seed, or a strength that is no probability.
    """
    for place, (name, part) in enumerate(parts.items()):
        written = []
        for index in tqdm(range(part.count), desc=f"drawing {name}", unit="scene", disable=part.count <= 500):
            drawn = shortcut_scene(seed + place, index, part.strength, settings)
            image = f"{LABELS[drawn.label]}/{index:06d}.png"
            _save(folder / name / image, drawn.scene.image)
            if part.masks:
                _save(folder / "masks" / name / image, label_map(drawn))
            written.append((image, drawn.conflicting))
        if part.masks:
            (folder / "masks" / name / "labels.json").write_text(json.dumps(NAMES) + "\n", "utf-8")
        if name == "test":
            _write_conflicting(folder / "conflicting.csv", written)


def label_map(drawn: ShortcutScene) -> NDArray[np.uint8]:
    """Values (H, W), uint8, of :data:`NAMES`: all distractors have the same."""
    return np.minimum(stacked([drawn]).segments[0], 2) + 1


def _save(file: Path, pixels: NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def _write_conflicting(file: Path, written: Sequence[tuple[str, bool]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("image", "conflicting"))
        table.writerows((image, str(flag).lower()) for image, flag in written)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=100, help="number of the first series (default: %(default)s)")
    given = parser.parse_args()
    export(given.out, given.seed, SceneSettings(size=(given.size, given.size)))
    print(f"{given.out}: {', '.join(f'{part.count} scenes in {name}' for name, part in PARTS.items())}")


if __name__ == "__main__":
    main()
