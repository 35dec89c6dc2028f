"""Segments that the server makes itself: superpixels that follow the picture, or a plain grid.

They are made on the picture as the model sees it, so that they are exact in the model's frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skimage.segmentation import slic as skimage_slic
from torch import Tensor


@dataclass(frozen=True)
class SlicSettings:
    """Settings of superpixels (Achanta et al. 2012, SLIC).

    Attributes:
        n_segments: Approximate number of superpixels.
        compactness: Weight of nearness against colour. With skimage's own 10, textured pictures of 32×32 pixels fall
            into as few as 6 of 50 pieces; with 20 into 25 to 39 of them, and of 224×224 pixels into 41 to 51.
    """

    n_segments: int = 50
    compactness: float = 20.0

    def __post_init__(self) -> None:
        if self.n_segments < 1:
            raise ValueError(f"n_segments: wanted at least 1, got {self.n_segments}")
        if not self.compactness > 0:
            raise ValueError(f"compactness: wanted a positive number, got {self.compactness}")


@dataclass(frozen=True)
class GridSettings:
    """A grid of cells as equal as whole pixels allow."""

    rows: int = 4
    columns: int = 4

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1:
            raise ValueError(f"rows, columns: wanted at least 1 of each, got {self.rows} and {self.columns}")


def slic(rgb: Tensor, settings: SlicSettings | None = None, most: int | None = None) -> Tensor:
    """Cut a picture into superpixels; equal pictures, equal labels.

    Args:
        rgb: Picture (3, H, W) in [0, 1].
        settings: Settings of the superpixels, see :class:`SlicSettings`.
        most: Largest number of superpixels. Their seeds stand on a grid of whole pixels, so that on a small picture
            there may be twice as many as asked for; with too many, fewer are asked for, until they are not.

    Returns:
        (H, W) int64 labels from 0.

    Raises:
        ValueError: a ``most`` below 1.
    """
    settings = settings or SlicSettings()
    if most is not None and most < 1:
        raise ValueError(f"most: wanted at least 1, got {most}")
    picture = np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy(), dtype=np.float64)
    asked = settings.n_segments
    while True:
        labels = skimage_slic(picture, asked, settings.compactness, start_label=0, channel_axis=-1)
        values, dense = np.unique(labels, return_inverse=True)
        if most is None or len(values) <= most or asked == 1:
            break
        asked = max(1, min(asked - 1, asked * most // len(values)))
    if most is not None and len(values) > most:  # a single seed's piece that fell apart
        dense = np.zeros_like(dense)
    return torch.from_numpy(dense.reshape(labels.shape).astype(np.int64))


def grid(size: tuple[int, int], settings: GridSettings | None = None) -> Tensor:
    """Labels (H, W) of a grid's cells, int64, from 0, row by row; cells for which there is no pixel are left out."""
    settings = settings or GridSettings()
    rows = torch.arange(size[0]) * min(settings.rows, size[0]) // size[0]
    columns = torch.arange(size[1]) * min(settings.columns, size[1]) // size[1]
    return rows[:, None] * (columns[-1] + 1) + columns


def one_hot(labels: Tensor) -> Tensor:
    """Masks (S, H, W), bool, one for each label 0 … S − 1 of (H, W)."""
    return labels == torch.arange(int(labels.max()) + 1).view(-1, 1, 1)
