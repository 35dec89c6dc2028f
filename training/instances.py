"""Scenes with their instances, as detectors train on them and are measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from training.scenes import SceneSettings, scene

SETTINGS = SceneSettings(size=(128, 128), objects=(1, 4), extent=(0.4, 0.9), distractors=(0, 3))
"""One to four objects of the ten classes, 13 to 115 pixels across, and what is none of them."""

_CHUNK = 100


@dataclass(frozen=True)
class Instances:
    """Many scenes; all tensors on the CPU.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        owners: (N, H, W) uint8, the object of the scene that each pixel shows, from 1; 0 for none.
        classes: (N, M) int64 class of each object, −1 beyond the last one.
    """

    images: Tensor
    owners: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.images)


def draw(seed: int, count: int, settings: SceneSettings = SETTINGS, processes: int = 2) -> Instances:
    """The scenes 0 … count − 1 of a series; the same for any number of processes."""
    tasks = [(seed, start, min(start + _CHUNK, count), settings) for start in range(0, count, _CHUNK)]
    with tqdm(total=count, desc="drawing scenes", unit="scene", disable=count <= _CHUNK) as progress:
        if processes == 1 or len(tasks) == 1:
            chunks = [_drawn(task) for task in tasks]
        else:
            with get_context("spawn").Pool(processes) as pool:
                chunks = []
                for chunk in pool.imap(_drawn, tasks):
                    chunks.append(chunk)
                    progress.update(len(chunk[0]))
    images, owners, classes = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*chunks, strict=True))
    return Instances(images, owners, classes)


def _drawn(task: tuple[int, int, int, SceneSettings]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    seed, start, end, settings = task
    images = np.zeros((end - start, *settings.size, 3), dtype=np.uint8)
    owners = np.zeros((end - start, *settings.size), dtype=np.uint8)
    classes = np.full((end - start, settings.objects[1]), -1, dtype=np.int64)
    for row in range(end - start):
        drawn = scene(seed, start + row, settings)
        images[row] = drawn.image
        objects = [(instance.class_index, instance.mask) for instance in drawn.instances]
        of_classes = [(index, mask) for index, mask in objects if index is not None]
        for place, (index, mask) in enumerate(of_classes):
            owners[row][mask] = place + 1
            classes[row, place] = index
    return images, owners, classes


def altered(images: Tensor, owners: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, S, S, 3) and owners (B, S, S) under a symmetry of the generator: mirrored, transposed, recoloured."""

    def chosen() -> Tensor:
        return torch.rand(len(images), 1, 1, generator=generator) < 0.5

    for axis in (1, 2):
        turned = chosen()
        images = torch.where(turned[..., None], images.flip(axis), images)
        owners = torch.where(turned, owners.flip(axis), owners)
    turned = chosen()
    images = torch.where(turned[..., None], images.transpose(1, 2), images)
    owners = torch.where(turned, owners.transpose(1, 2), owners)
    order = torch.rand(len(images), 3, generator=generator).argsort(1)
    return images.gather(3, order[:, None, None].expand_as(images)), owners


def masks_of(owners: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """One scene's masks (K, H, W) bool and classes (K,), from owners (H, W) and classes (M,)."""
    present = classes >= 0
    numbers = torch.arange(1, len(classes) + 1, dtype=owners.dtype)[present]
    masks = owners == numbers[:, None, None]
    seen = masks.flatten(1).any(1)
    return masks[seen], classes[present][seen]


def boxes_of(masks: Tensor) -> Tensor:
    """(K, 4) float32 x0, y0, x1, y1 around masks (K, H, W), the ends exclusive."""
    boxes = torch.zeros(len(masks), 4)
    for row, mask in enumerate(masks):
        ys, xs = mask.nonzero(as_tuple=True)
        boxes[row] = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    return boxes
