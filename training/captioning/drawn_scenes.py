"""Named scenes in numbers, drawn by several processes."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import get_context

from tqdm import tqdm

from training.captioning.named_scenes import NamedScene, named_scene

_CHUNK = 50


def draw(seed: int, count: int, processes: int = 1, *, start: int = 0) -> Iterator[NamedScene]:
    """The scenes start … start + count − 1 of a series in their order; the same for any number of processes."""
    chunks = [(seed, first, min(first + _CHUNK, start + count)) for first in range(start, start + count, _CHUNK)]
    with tqdm(total=count, desc="drawing scenes", unit="scene", disable=count <= 2 * _CHUNK) as progress:
        if processes == 1 or len(chunks) == 1:
            for chunk in chunks:
                yield from _drawn(chunk)
                progress.update(chunk[2] - chunk[1])
            return
        with get_context("spawn").Pool(processes) as pool:
            for scenes in pool.imap(_drawn, chunks):
                yield from scenes
                progress.update(len(scenes))


def _drawn(chunk: tuple[int, int, int]) -> list[NamedScene]:
    seed, first, end = chunk
    return [named_scene(seed, index) for index in range(first, end)]
