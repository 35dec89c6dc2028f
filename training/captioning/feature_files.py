"""Features in the original's files: global ones in an array, those of regions in an HDF5 file for each image.

An image's file has one data set, with a row for each box; its attribute ``boxes`` holds their first and last pixels
(left, top, right, bottom), ``image_w`` and ``image_h`` the sides of the image. Row 0 is usually the whole image; there
is a box for each object, and one around subject and object of each relationship.

h5py is imported where it is needed: training and evaluation have it, archives do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Box
from training.captioning.vocabulary import read_array, write_array
from training.finetuning.whole_files import replace

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True, eq=False)
class RegionFeatures:
    """Features of an image's boxes.

    Attributes:
        boxes: (R, 4) int32, first and last pixels: left, top, right, bottom.
        features: (R, D) floats.
        size: Height and width of the image, pixels.
    """

    boxes: NDArray[np.int32]
    features: NDArray[np.floating]
    size: tuple[int, int]

    def row(self, box: Box) -> int:
        """Row of a box; of several with the same corners the last, as in the original.

        Raises:
            ArgumentError: a box without a feature.
        """
        corners = box.inclusive_corners
        row = self._rows.get(corners)
        if row is None:
            named = ", ".join(f"{value:g}" for value in corners)
            raise ArgumentError("box", f"wanted one of the {len(self.boxes)} boxes with a feature, got ({named})")
        return row

    @cached_property
    def _rows(self) -> dict[tuple[float, ...], int]:
        return {tuple(map(float, box)): row for row, box in enumerate(self.boxes.tolist())}


def read_global(file: Path, images: int) -> Tensor:
    """Read global features (images, D), float32.

    Raises:
        ArgumentError: another number of images, no array, or features that are not finite.
        FileNotFoundError: no such file.
    """
    features = read_array(file, "f", 2)
    if len(features) != images:
        raise ArgumentError("features", f"wanted {images} rows, one for each image, in {file}, got {len(features)}")
    _check_finite(features, file)
    return torch.from_numpy(features.astype(np.float32))


def write_global(file: Path, features: Tensor) -> None:
    """Write global features (N, D)."""
    write_array(file, features.detach().float().numpy())


def read_region_features(file: Path) -> RegionFeatures:
    """Read the features of an image's boxes.

    Raises:
        ArgumentError: no such file of features, or features that are not finite.
        FileNotFoundError: no such file.
    """
    import h5py

    if not file.is_file():
        raise FileNotFoundError(file)
    try:
        with h5py.File(file, "r") as content:
            (name,) = content  # one data set
            table = content[name]
            boxes, features = np.asarray(table.attrs["boxes"]), table[...]
            size = (int(table.attrs["image_h"]), int(table.attrs["image_w"]))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        wanted = "wanted one data set with boxes, image_w and image_h"
        raise ArgumentError("features", f"{wanted} in {file}: {error}") from None
    if features.ndim != 2 or boxes.shape != (len(features), 4):
        raise ArgumentError("features", f"wanted a box for each row in {file}, got {boxes.shape} for {features.shape}")
    _check_finite(features, file)
    return RegionFeatures(boxes.astype(np.int32), features, size)


def write_region_features(file: Path, name: str, regions: RegionFeatures) -> None:
    """Write the features of an image's boxes.

    Args:
        file: File.
        name: Name of the data set: the original's is the file's, without its suffix.
        regions: Features.
    """
    import h5py

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as content:
            _fill(content, name, regions)

    replace(file, write)


def _fill(content: h5py.File, name: str, regions: RegionFeatures) -> None:
    table = content.create_dataset(name, data=regions.features.astype(np.float64), compression="gzip")
    table.attrs["boxes"] = regions.boxes.astype(np.int32)
    table.attrs["image_h"], table.attrs["image_w"] = regions.size


def _check_finite(features: np.ndarray, file: Path) -> None:
    if not np.isfinite(features).all():
        raise ArgumentError("features", f"wanted finite features in {file}, got others")
