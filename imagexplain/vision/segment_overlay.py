"""Segments drawn over their photo, each in the colour of its sign and strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from imagexplain.vision.figure import em_of
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.heatmap import veiled
from imagexplain.vision.marks import Mark, apart, edges, pole

_OUTLINE = np.array([250, 250, 250], dtype=np.uint8)
_OUTLINE_ON_PALE = np.array([150, 150, 156], dtype=np.uint8)
_PALE = 215  # level of the darkest channel above which a white line is not to be seen


def smallest(masks: Tensor) -> Tensor:
    """Smallest group of masks (G, H, W) that each pixel lies in, (H, W) int64, −1 where it lies in none."""
    order = masks.flatten(1).sum(1).argsort(descending=True, stable=True)
    labels = torch.full(masks.shape[1:], -1, dtype=torch.int64)
    for index in order.tolist():  # the smallest is painted last
        labels[masks[index]] = index
    return labels


def coloured(photo: Image.Image, labels: Tensor, strengths: Tensor, geometry: Geometry) -> Image.Image:
    """Draw the photo under a veil of colour per segment, with outlines.

    Args:
        photo: Upright RGB photo; not changed.
        labels: Segment that each pixel of the model's input shows, (H, W) int64, see :func:`smallest`.
        strengths: Strengths (G,) in [−1, 1]; positive supports.
        geometry: Map from the photo to the model's input; what it cut off stays without colour.

    Returns:
        An RGB image of the photo's size.
    """
    drawn = geometry.labels_to_photo(labels, outside=-1).numpy()  # (photo height, photo width)
    colours = np.append(np.nan_to_num(strengths.double().cpu().numpy()).clip(-1, 1), 0).astype(np.float32)
    picture = veiled(photo, lambda rows: colours[drawn[rows]], geometry)
    edge = edges(drawn, max(1, round(em_of(photo.size) / 10)))
    pale = picture[edge].min(axis=1, keepdims=True) > _PALE
    picture[edge] = np.where(pale, _OUTLINE_ON_PALE, _OUTLINE)
    return Image.fromarray(picture)


def marks(masks: Tensor, labels: Tensor, listed: Sequence[int], geometry: Geometry) -> list[Mark]:
    """Places of the numbers 1, 2, … of the listed segments, each within what is to be seen of its segment.

    A segment that smaller ones cover wholly has its number where it is widest, away from the others' numbers.

    Args:
        masks: Masks (G, H, W), bool, over the model's input.
        labels: Labels (H, W) of them, see :func:`smallest`.
        listed: Rows of ``masks``, in the order of their numbers.
        geometry: Map from the photo to the model's input.
    """
    top, left, height, width = geometry.box
    scale = (geometry.photo[0] / geometry.resized[0], geometry.photo[1] / geometry.resized[1])
    pixel = (scale[0] * height / labels.shape[0], scale[1] * width / labels.shape[1])  # of the photo
    em = em_of((geometry.photo[1], geometry.photo[0]))
    found: list[Mark] = []
    for number, index in enumerate(listed, 1):
        shown: NDArray[np.bool_] = (labels == index).numpy()
        if not shown.any():
            taken = [((mark.y / scale[0] - top), (mark.x / scale[1] - left)) for mark in found]
            shown = apart(masks[index].cpu().numpy(), taken, em / min(pixel))
        row, column, radius = pole(shown, pixel)
        found.append(Mark(number, column + left * scale[1], row + top * scale[0], radius))
    return found
