"""Instances drawn over their photo: each mask in a colour of its own, with its outline."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagexplain.vision.detections import Detections
from imagexplain.vision.figure import PAPER, Caption, Row, em_of, figure, magnification, magnified
from imagexplain.vision.lettering import drawable
from imagexplain.vision.marks import Mark, apart, numbered, pole, rim
from imagexplain.vision.mask_crops import CroppedMask

OPACITY = 0.4
LISTED = 20
"""Largest number of instances with a number and a row of the legend: the surest."""
HUES = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((86, 180, 233), (213, 94, 0), (240, 228, 66)),
)
"""Okabe and Ito's palette, whose colours all kinds of colour blindness tell apart."""
_STRIP = 256  # rows
GOLDEN = 0.618034  # neighbours in rank get hues far apart


def drawn(
    photo: Image.Image, found: Detections, labels: Sequence[str], model: str = "", *, annotated: bool = True
) -> Image.Image:
    """Draw all instances over the photo.

    Args:
        photo: Upright RGB photo; not changed.
        found: Instances over it.
        labels: Names of the classes.
        model: Name of the model, for the title.
        annotated: Title, a number in each of the surest instances, and a legend; without them the image has the photo's
            size.
    """
    scale = magnification(photo.size) if annotated else 1
    panel = masked(magnified(photo, scale), [enlarged(cut_out, scale) for cut_out in found.cut_outs])
    names = [drawable(labels[label]) for label in found.labels.tolist()]
    scores = found.scores.tolist()
    rows = [
        Row(name, (f"{score:.2f}",), colour(rank), rank + 1)
        for rank, (name, score) in enumerate(zip(names[:LISTED], scores[:LISTED], strict=True))
    ]
    if len(found) > LISTED:
        rows.append(Row(f"{len(found) - LISTED} more", (f"≤ {scores[LISTED]:.2f}",), None))
    count = "1 instance" if len(found) == 1 else f"{len(found)} instances"
    caption = Caption(
        f"{drawable(model)}: {count}" if model else count, ("label and score of each",), legend=tuple(rows)
    )
    if not annotated:
        return figure(panel, caption, photo.size)
    em = em_of(panel.size)
    return figure(numbered(panel, _marks(found.cut_outs[:LISTED], scale, em), em), caption, photo.size, scale)


def masked(photo: Image.Image, cut_outs: Sequence[CroppedMask]) -> Image.Image:
    """Colour each mask in the photo by its rank, the smallest on top, and outline it over all of them."""
    pixels = np.array(photo)
    thickness = max(1, round(em_of(photo.size) / 7))
    order = sorted(range(len(cut_outs)), key=lambda rank: -cut_outs[rank].area)
    for rank in order:
        tint(pixels[cut_outs[rank].window], cut_outs[rank].mask, colour(rank))
    for rank in order:
        outline(pixels, cut_outs[rank], colour(rank), thickness)
    return Image.fromarray(pixels)


def tint(part: NDArray[np.uint8], mask: NDArray[np.bool_], shade: tuple[int, int, int]) -> None:
    """Lay a colour over the pixels of a mask (h, w) in a part (h, w, 3) of a picture.

    It works by a table, and strip by strip: one mask may fill a photo of 50 megapixels.
    """
    if mask.size == 0:
        return
    levels = np.arange(256, dtype=np.float32)[:, None] * (1 - OPACITY)  # (256, 1)
    table = np.rint(levels + np.array(shade, dtype=np.float32) * OPACITY).astype(np.uint8)[None]  # (1, 256, 3)
    for top in range(0, len(part), _STRIP):
        strip = part[top : top + _STRIP]  # a view
        cv2.copyTo(cv2.LUT(strip, table), mask[top : top + _STRIP].view(np.uint8), strip)


def outline(pixels: NDArray[np.uint8], cut_out: CroppedMask, shade: tuple[int, int, int], thickness: int) -> None:
    """Draw the rim of a mask into a picture (H, W, 3); a thick one has a fine white line on its inner side."""
    part = pixels[cut_out.window]
    outer = rim(cut_out.mask, thickness)
    if thickness > 1:
        part[rim(cut_out.mask, thickness + max(1, thickness // 3)) & ~outer] = PAPER
    part[outer] = shade


def enlarged(cut_out: CroppedMask, scale: int) -> CroppedMask:
    """Enlarge a cut-out to a photo of which each pixel has become ``scale`` × ``scale``."""
    if scale == 1:
        return cut_out
    mask = cut_out.mask.repeat(scale, axis=0).repeat(scale, axis=1)
    return CroppedMask(mask, (cut_out.corner[0] * scale, cut_out.corner[1] * scale))


def colour(rank: int) -> tuple[int, int, int]:
    """Colour of the instance of that rank, RGB in 0..255."""
    if rank < len(HUES):
        return HUES[rank]
    red, green, blue = colorsys.hsv_to_rgb((0.02 + rank * GOLDEN) % 1, 0.85, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _marks(cut_outs: Sequence[CroppedMask], scale: int, em: int) -> list[Mark]:
    found: list[Mark] = []
    for number, cut_out in enumerate(cut_outs, 1):
        if not cut_out.mask.any():
            continue
        top, left = cut_out.corner
        taken = [(mark.y / scale - top, mark.x / scale - left) for mark in found]
        row, column, radius = pole(apart(cut_out.mask, taken, em / scale), (scale, scale))
        found.append(Mark(number, column + left * scale, row + top * scale, radius))
    return found
