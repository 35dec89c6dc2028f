"""TensorMask's losses: focal loss on classes, L1 on boxes, weighted cross entropy on masks, each per positive window.

Chen, Girshick, He, Dollár, ICCV 2019, section 5.2; the numbers as in detectron2's projects/TensorMask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.3, 3.0
MASK_WEIGHT = 2.0
POSITIVE_WEIGHT = 1.5
"""Weight of a mask's own pixels against those beside it."""


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Sum of the focal loss FL* over windows and classes (Lin et al., "Focal Loss", ICCV 2017, appendix A).

    Args:
        logits: (M, K) before the sigmoid.
        classes: (M,) int64, −1 for background.
    """
    truth = torch.zeros_like(logits)
    found = classes >= 0
    truth[found, classes[found]] = 1
    loss = -F.logsigmoid(GAMMA * logits * (2 * truth - 1)) / GAMMA
    return (loss * torch.where(truth == 1, ALPHA, 1 - ALPHA)).sum()


def box_loss(deltas: Tensor, wanted: Tensor) -> Tensor:
    """Sum of |difference| of (F, 4) box deltas."""
    return (deltas - wanted).abs().sum()


def mask_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum over windows of the mean cross entropy over a window's pixels.

    Args:
        logits: (F, side, side) before the sigmoid.
        wanted: (F, side, side) bool.
    """
    weight = logits.new_tensor(POSITIVE_WEIGHT)
    total = F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="sum", pos_weight=weight)
    return MASK_WEIGHT * total / (logits.shape[-1] * logits.shape[-2])
