"""Write scenes as a labelled image folder: OUT/<class>/<index>.png.

python -m training.export_scenes OUT --count 500 --size 32 --seed 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from training.scenes import CLASSES, SceneSettings, scene


def export(folder: Path, count: int, seed: int, settings: SceneSettings) -> None:
    """Write the scenes 0 … count − 1 of a series under `folder`, one folder per class, every class included.

    Raises:
        ValueError: a count below 1 or a negative seed.
    """
    if count < 1:
        raise ValueError(f"count: wanted at least 1, got {count}")
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(count), desc="drawing scenes", unit="scene", disable=count <= 500):
        drawn = scene(seed, index, settings)
        Image.fromarray(drawn.image).save(folder / CLASSES[drawn.label] / f"{index:06d}.png")


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--count", type=int, default=100, help="how many; ten consecutive scenes hold every class once")
    parser.add_argument("--size", type=int, nargs="+", default=[32], help="side, or height and width, in pixels")
    parser.add_argument("--seed", type=int, default=1, help="names the series; the weights were trained on series 0")
    given = parser.parse_args()
    if len(given.size) > 2:
        parser.error(f"--size: wanted one or two numbers, got {len(given.size)}")
    export(given.out, given.count, given.seed, SceneSettings(size=(given.size[0], given.size[-1])))
    print(f"{given.out}: {given.count} scenes in {len(CLASSES)} folders")


if __name__ == "__main__":
    main()
