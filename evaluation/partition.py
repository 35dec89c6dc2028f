"""Partitions of an image into groups of pixels, with what is known of each group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imagexplain.vision.superpixels import SlicSettings, slic
from training.scenes import Scene

REST = "rest"


@dataclass(frozen=True, eq=False)
class Partition:
    """Groups that together hold every pixel once.

    Attributes:
        segments: (H, W) int64, the group 0 … G−1 of each pixel; none is empty.
        names: (G,) names of the groups.
        inside: (G,) float64, the part of each group's pixels that lies in the deciding object, 0 … 1.
        objects: (G,) bool, the groups that are something, not the rest of the image.
    """

    segments: Tensor
    names: tuple[str, ...]
    inside: Tensor
    objects: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @property
    def area(self) -> Tensor:
        """(G,) int64 pixels."""
        return torch.bincount(self.segments.flatten(), minlength=len(self))

    @property
    def masks(self) -> Tensor:
        """(G, H, W) bool."""
        return self.segments == torch.arange(len(self)).view(-1, 1, 1)

    def sums(self, values: Tensor) -> Tensor:
        """(G,) float64 sums of a map (H, W) over each group."""
        return torch.bincount(self.segments.flatten(), values.flatten().double(), minlength=len(self))


def partition(segments: Tensor, names: tuple[str, ...], deciding: Tensor) -> Partition:
    """The groups of a label map (H, W); groups named ``rest`` are no objects.

    Args:
        segments: (H, W) int64 labels 0 … G−1.
        names: (G,).
        deciding: (H, W) bool, the deciding object.

    Raises:
        ValueError: a group without pixels, or labels beyond the names.
    """
    area = torch.bincount(segments.flatten(), minlength=len(names))
    if len(area) != len(names) or not area.all():
        raise ValueError(f"segments: wanted pixels of each of {len(names)} groups, got counts {area.tolist()}")
    inside = torch.bincount(segments[deciding], minlength=len(names)).double() / area
    return Partition(segments, names, inside, torch.tensor([name != REST for name in names]))


def by_objects(scene: Scene) -> Partition:
    """A scene's objects as far as they can be seen, and the rest of the image."""
    masks = torch.from_numpy(scene.masks)  # disjoint
    names = [f"{number} {instance.kind}" for number, instance in enumerate(scene.instances)]
    covered = masks.any(0)
    segments = torch.where(covered, masks.int().argmax(0), len(names))
    if not covered.all():
        names.append(REST)
    return partition(segments, tuple(names), torch.from_numpy(scene.deciding.mask))


def by_superpixels(photo: Tensor, deciding: Tensor, settings: SlicSettings) -> Partition:
    """The superpixels of a photo (3, H, W) in RGB of 0 … 1, as the server makes them."""
    segments = slic(photo, settings)
    names = tuple(f"superpixel {number}" for number in range(int(segments.max()) + 1))
    return partition(segments, names, deciding)
