"""Reads the upstream implementations' tensors from the fixtures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.deterministic import FIXTURES as FIXTURES
from benchmarks.deterministic import shapes as shapes

TARGET = 3

EXPLAINED = {"bit": "bit/tiny_1111_det_eval.npz", "lanet": "lanet/C8_L4_calib_eval.npz"}
"""The file of what upstream explained, by architecture."""


@dataclass(frozen=True)
class Explained:
    """What upstream computed for one image and target 3: ``eval()``, 50 Gauss–Legendre steps from a zero baseline."""

    input: Tensor  # (1, 3, 32, 32)
    output: Tensor  # (1, 10)
    intermediates: Tensor  # (50, 3, 32, 32): the points of the path
    integrated_directional_grads: Tensor  # (50, 3, 32, 32): the target's gradient at each
    step_sizes: Tensor  # (50, 1) float64
    integrated_grads: Tensor  # (1, 3, 32, 32) float64


def explained(name: str) -> Explained:
    with np.load(FIXTURES / name) as arrays:
        return Explained(**{field: torch.from_numpy(arrays[field]) for field in Explained.__dataclass_fields__})


def gradients(model: nn.Module, images: Tensor) -> Tensor:
    """The target score's gradient for each image of a batch, (B, 3, H, W)."""
    images = images.detach().requires_grad_()
    return torch.autograd.grad(model(images)[:, TARGET].sum(), images)[0]


def integrated(expected: Explained, grads: Tensor) -> Tensor:
    """Integrated gradients (1, 3, H, W) from the gradients at the path's points; the baseline is zero."""
    return expected.input * (expected.step_sizes[:, :, None, None] * grads).sum(0, keepdim=True)


def distance(given: Tensor, wanted: Tensor) -> float:
    """‖given − wanted‖ / ‖wanted‖."""
    given, wanted = given.detach().double(), wanted.detach().double()
    return float((given - wanted).norm() / wanted.norm())
