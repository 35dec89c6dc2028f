"""The windows of TensorMask that an object trains, and the answer that each of them should give.

The assignment rule of Chen, Girshick, He, Dollár, "TensorMask: A Foundation for Dense Object Segmentation", ICCV 2019,
section 5.2: a window belongs to an object that it fully contains, whose size and centre are near to its own, and to
none if there are several such objects. Numbers as in detectron2's projects/TensorMask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

MAX_SIDE_RATIO = 2.0
"""Ratio of a window's side, less one unit, to the object's longer side, at most."""

MAX_CENTRE_DISTANCE = 1.0
"""Distance between the centres of window and object, at most, in units of the window."""

BOX_WEIGHTS = (1.5, 1.5, 0.75, 0.75)
"""Factors of (dx, dy, dw, dh)."""

BACKGROUND = -1


def assign(boxes: Tensor, windows: Tensor, units: Tensor, smallest: float) -> Tensor:
    """The object that each window is to find.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 of the objects, pixels.
        windows: (M, 4) of the windows (anchors).
        units: (M,) the distance between neighbouring windows of the same level, pixels.
        smallest: Side of the smallest window less its unit: objects smaller than half of it count as half of it.

    Returns:
        (M,) int64 index of the object, :data:`BACKGROUND` for none or for more than one.
    """
    if len(boxes) == 0:
        return windows.new_full((len(windows),), BACKGROUND, dtype=torch.int64)
    box, window = boxes[:, None], windows[None]  # (N, 1, 4), (1, M, 4)
    contained = (box[..., :2] >= window[..., :2]).all(-1) & (box[..., 2:] <= window[..., 2:]).all(-1)  # (N, M)
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    room = (MAX_SIDE_RATIO * longer).clamp_min(smallest)
    side = (windows[:, 2:] - windows[:, :2]).amax(1) - units
    alike = side[None] <= room[:, None]
    offset = (box[..., :2] + box[..., 2:] - window[..., :2] - window[..., 2:]) / 2 / units[:, None]
    near = offset.square().sum(-1) <= MAX_CENTRE_DISTANCE**2
    fits = contained & alike & near
    found = fits.int().argmax(0)  # the first that fits
    return torch.where(fits.sum(0) == 1, found, BACKGROUND)


def box_deltas(windows: Tensor, boxes: Tensor) -> Tensor:
    """(F, 4) weighted (dx, dy, dw, dh) that move each window (F, 4) onto its box (F, 4); R-CNN's parametrisation."""
    size, wanted = windows[:, 2:] - windows[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - windows[:, :2] - windows[:, 2:]) / 2 / size
    return torch.cat([shift, (wanted / size).log()], 1) * windows.new_tensor(BOX_WEIGHTS)


def mask_in_window(masks: Tensor, windows: Tensor, side: int) -> Tensor:
    """Each mask as its window sees it.

    Args:
        masks: (F, H, W) bool.
        windows: (F, 4) pixels, one for each mask; they may reach over the image's edge, where nothing is.
        side: Number of pixels along the window's grid.

    Returns:
        (F, side, side) bool: at least half of the grid's pixel is covered.
    """
    which = torch.arange(len(masks), device=masks.device, dtype=torch.float32)[:, None]
    rois = torch.cat([which, windows.float()], 1)
    return roi_align(masks[:, None].float(), rois, side, aligned=True)[:, 0] >= 0.5


@dataclass(frozen=True)
class Targets:
    """The answers that the windows of one image should give, the M windows of all levels laid end to end.

    Attributes:
        matched: (M,) int64 the object of each window, :data:`BACKGROUND` for none.
        classes: (M,) int64 its class, :data:`BACKGROUND` for none.
        deltas: (F, 4) box deltas of the F windows with an object, in their order.
    """

    matched: Tensor
    classes: Tensor
    deltas: Tensor


def targets(boxes: Tensor, classes: Tensor, windows: Tensor, units: Tensor, smallest: float) -> Targets:
    """The targets of one image with objects ``boxes`` (N, 4) of ``classes`` (N,); see :func:`assign`."""
    matched = assign(boxes, windows, units, smallest)
    foreground = matched >= 0
    of_object = matched[foreground]
    labels = torch.full_like(matched, BACKGROUND)
    labels[foreground] = classes[of_object]
    return Targets(matched, labels, box_deltas(windows[foreground], boxes[of_object]))
