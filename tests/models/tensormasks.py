"""Weights of small TensorMasks."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks import deterministic
from imagexplain.models.segmenters.tensormask import TensorMask, TensorMaskSettings, TensorMaskSize


def untrained_state(size: TensorMaskSize, settings: TensorMaskSettings) -> dict[str, Tensor]:
    """Weights made from their names, by which about half of the windows are above the threshold."""
    with torch.device("meta"):
        model = TensorMask(size, settings)
    state = deterministic.state({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    state["head.cls_score.weight"] *= 0.3
    state["head.bbox_pred.weight"] *= 0.05
    state["head.cls_score.bias"] -= 3
    return state
