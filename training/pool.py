"""Many scenes at once, drawn by several processes."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training import instances
from training.scenes import SceneSettings, scenes

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, H, W, 3) and labels (N,)."""

CHUNK = 500


def draw(seed: int, count: int, settings: SceneSettings, processes: int | None = None) -> Labelled:
    """The images and labels of the scenes 0 … count − 1 of a series.

    Args:
        seed: Number of the series, from 0.
        count: Number of scenes, at least 1.
        settings: Settings of the scenes.
        processes: Number of processes that draw at once; by default one per core. The result does not depend on it.
    """
    tasks = [(seed, start, min(CHUNK, count - start), settings) for start in range(0, count, CHUNK)]
    processes = min(processes or os.cpu_count() or 1, len(tasks))
    with tqdm(total=count, desc="drawing scenes", unit="scene", disable=count <= CHUNK) as progress:
        chunks = []
        if processes == 1:
            for task in tasks:
                chunks.append(_scenes(task))
                progress.update(task[2])
        else:
            with get_context("spawn").Pool(processes) as pool:
                for chunk in pool.imap(_scenes, tasks):
                    chunks.append(chunk)
                    progress.update(len(chunk[1]))
    return np.concatenate([images for images, _ in chunks]), np.concatenate([labels for _, labels in chunks])


def draw_with_masks(seed: int, count: int, settings: SceneSettings) -> Labelled:
    """The scenes of `draw`, with a fourth channel that is not 0 where the deciding object, the only one, shows."""
    drawn = instances.draw(seed, count, settings)
    return np.concatenate([drawn.images, drawn.owners[..., None]], axis=3), drawn.classes[:, 0].numpy()


def draw_or_read(path: Path | None, seed: int, count: int, settings: SceneSettings, masks: bool = False) -> Labelled:
    """The scenes of `draw` or `draw_with_masks`, kept in the `.npz` file `path`, to be read the next time.

    Raises:
        ValueError: the file holds scenes of another seed, number or settings, or masks where none are wanted.
    """
    chosen = draw_with_masks if masks else draw
    if path is None:
        return chosen(seed, count, settings)
    wanted = f"seed {seed}, {count} scenes{' with masks' if masks else ''}, {settings}"
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["origin"]) != wanted:
                raise ValueError(f"{path}: wanted {wanted}; given {kept['origin']}")
            return kept["images"], kept["labels"]
    images, labels = chosen(seed, count, settings)
    np.savez(path, images=images, labels=labels, origin=np.array(wanted))
    return images, labels


def _scenes(task: tuple[int, int, int, SceneSettings]) -> Labelled:
    return scenes(*task)
