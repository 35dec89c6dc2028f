"""Pictures of one segment within its photo: all else is faded, and the segment outlined."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_PIXELS = 256
"""Pixels of the longer side of a picture, at most; smaller ones are magnified by a whole factor."""

MARGIN = 0.15
"""Part of a segment's own extent that a crop shows around it."""

FADED = 0.75
"""Part of the fading colour in what is faded."""

_FADE = 238
_OUTLINE = (200, 0, 120)


def segment_picture(photo: Image.Image, mask: NDArray[np.bool_], *, whole: bool = False) -> bytes:
    """PNG of a segment: its box with a margin around it, or the whole photo.

    Args:
        photo: Upright RGB photo.
        mask: Mask (H, W) over the photo; an empty one leaves all of it faded.
        whole: Flag for the whole photo.
    """
    top, left, bottom, right = (0, 0, *mask.shape) if whole else box_around(mask, MARGIN)
    pixels = np.asarray(photo)[top:bottom, left:right]
    inside = mask[top:bottom, left:right]
    scale = MOST_PIXELS / max(inside.shape)
    scale = max(1, int(scale)) if scale > 1 else scale
    size = (max(1, round(inside.shape[1] * scale)), max(1, round(inside.shape[0] * scale)))
    shown = np.asarray(
        Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    )
    covered = np.asarray(Image.fromarray(inside.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) >= 128
    drawn = np.where(covered[..., None], shown, (1 - FADED) * shown + FADED * _FADE).round().astype(np.uint8)
    drawn[_edge(covered)] = _OUTLINE
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG", optimize=True)
    return file.getvalue()


def box_around(mask: NDArray[np.bool_], margin: float = 0.0) -> tuple[int, int, int, int]:
    """Box (top, left, bottom, right), ends exclusive, around a mask (H, W) and a margin in parts of its sides.

    Of an empty mask it is the whole.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return (0, 0, *mask.shape)
    sides = []
    for places, length in ((rows, mask.shape[0]), (columns, mask.shape[1])):
        first, last = int(places[0]), int(places[-1]) + 1
        around = round(margin * (last - first))
        sides.append((max(0, first - around), min(length, last + around)))
    (top, bottom), (left, right) = sides
    return top, left, bottom, right


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask beside one that is not in it; the picture's own border is no edge."""
    around = np.pad(mask, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inner
