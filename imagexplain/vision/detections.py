"""Detections: the instances that a segmenter finds in a photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imagexplain.vision.mask_crops import CroppedMask, stack_full_masks


@dataclass(frozen=True)
class Detections:
    """Instances in a photo, the most probable first; on the CPU.

    Attributes:
        boxes: Boxes (N, 4), float32, x0, y0, x1, y1 in photo pixels.
        scores: Probabilities (N,), float32, descending.
        labels: Classes (N,), int64, from 0.
        cut_outs: Masks, N of them, each cut out.
        size: Height and width of the photo.
        anchors: Origins (N, …) of the detections in the model: the windows or regions whose class scores can be asked
            for again.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    cut_outs: tuple[CroppedMask, ...]
    size: tuple[int, int]
    anchors: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> Tensor:
        """Masks (N, H, W), bool, of the photo's size; made anew each time."""
        return torch.from_numpy(stack_full_masks(self.cut_outs, self.size))

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes."""
        tensors = (self.boxes, self.scores, self.labels, self.anchors)
        return sum(tensor.nbytes for tensor in tensors) + sum(cut_out.mask.nbytes for cut_out in self.cut_outs)
