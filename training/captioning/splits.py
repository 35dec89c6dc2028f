"""Splits of a data set: its images, and its regions, in two arrays of one name in two folders.

``public_split/<split>_names.npy`` holds the images, with their suffix, in the order of the global features;
``regionfiles/<split>_names.npy`` the pairs (image without suffix, region) that are captioned.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagexplain.errors import ArgumentError
from training.captioning.vocabulary import read_array, write_array

IMAGES, REGIONS = "public_split", "regionfiles"
SUFFIX = ".jpg"


@dataclass(frozen=True)
class Split:
    """The images and regions of a split.

    Attributes:
        images: Names of the images, without suffix.
        regions: Image and region of each caption.

    Raises:
        ArgumentError: an image twice, or a region of another image.
    """

    images: tuple[str, ...]
    regions: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        known = set(self.images)
        if len(known) < len(self.images):
            raise ArgumentError("images", f"wanted each once, got {len(self.images) - len(known)} again")
        for image, region in self.regions:
            if image not in known:
                raise ArgumentError("regions", f"wanted regions of the split's images, got {region} of {image}")

    def of_images(self, kept: Collection[str]) -> Split:
        """The split of some of its images, in their order."""
        return Split(
            tuple(image for image in self.images if image in kept),
            tuple(pair for pair in self.regions if pair[0] in kept),
        )


def read_split(annotation: Path, name: str) -> Split:
    """Read a split.

    Args:
        annotation: Folder of the annotations.
        name: Name of the split, such as ``val_sub``.

    Raises:
        ArgumentError: arrays that are no split.
        FileNotFoundError: no such split.
    """
    images = read_array(annotation / IMAGES / f"{name}_names.npy", "U", 1)
    regions = read_array(annotation / REGIONS / f"{name}_names.npy", "U", 2)
    if regions.shape[1:] != (2,):
        raise ArgumentError("regions", f"wanted pairs (image, region) in the split {name}, got {regions.shape}")
    pairs = tuple((str(image), str(region)) for image, region in regions)
    return Split(tuple(str(image).removesuffix(SUFFIX) for image in images), pairs)


def write_split(annotation: Path, name: str, split: Split) -> None:
    """Write a split under a name."""
    images = np.array([image + SUFFIX for image in split.images], dtype=np.str_)
    regions = np.array(split.regions, dtype=np.str_).reshape(-1, 2)
    write_array(annotation / IMAGES / f"{name}_names.npy", images)
    write_array(annotation / REGIONS / f"{name}_names.npy", regions)
