"""What an instance segmenter finds in a photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """The instances in a photo, the most probable first.

    Attributes:
        boxes: (N, 4) float32 x0, y0, x1, y1 in photo pixels.
        scores: (N,) float32 probabilities, descending.
        labels: (N,) int64 classes, from 0.
        masks: (N, H, W) bool, of the photo's size.
        anchors: (N, …) where the model found each: the windows or regions whose class scores can be asked for again.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    anchors: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> Detections:
        """The same on another device."""
        return Detections(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))
