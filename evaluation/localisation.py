"""Localisation: the overlap of a map's highlighted region with the deciding object."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

from imagexplain.attribution.postprocess import iou, localize, normalize


def overlap(maps: Tensor, deciding: Tensor, channels: str = "sum") -> tuple[float, float]:
    """IoU of mask and of box with the deciding object's. Higher is better, 0 … 1.

    Args:
        maps: (1, C, H, W) map, as a method returns it.
        deciding: (H, W) bool, the deciding object.
        channels: Reduction of the channels, see :func:`imagexplain.attribution.postprocess.normalize`.
    """
    found = localize(normalize(maps, channels=channels))
    box = masks_to_boxes(deciding.unsqueeze(0))
    box[:, 2:] += 1  # its last pixel is within the box
    by_mask = iou(found.masks, deciding.unsqueeze(0)).item()
    return by_mask, box_iou(found.boxes.to(box), box).item()
