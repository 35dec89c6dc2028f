"""A stand-in for ``mmcv._ext``, the compiled half of mmcv, over torchvision's operators.

``mmcv-lite`` carries the Python side of every operator and none of the compiled code. Of the compiled code, R-CNNs need
non-maximum suppression and RoIAlign at inference; torchvision has both, for CPU and CUDA, differentiable in the same
way. Everything else that mmcv asks for at import is there by name, and says what to install when it is called.

Provenance: the calling conventions are facts of mmcv 2.1.0 (https://github.com/open-mmlab/mmcv, Apache-2.0); the
operators are torchvision's (BSD-3-Clause). No code of mmcv's is here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

NAME = "mmcv._ext"

AVERAGE = 1
"""Code by which mmcv asks for the average of the samples of a bin; 0 takes their maximum."""


class MissingOperatorError(NotImplementedError):
    """Error for an operator of the compiled mmcv that the stand-in lacks."""


class _StandIn(ModuleType):
    """Module with every operator's name, so that ``import mmcv.ops`` finds all it looks for."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise MissingOperatorError(_advice(name))

        missing.__name__ = name
        return missing


def install() -> bool:
    """Put the stand-in where ``mmcv.ops`` looks for its compiled module, unless there is one. Idempotent.

    Call it before anything imports ``mmcv.ops``, hence before ``mmdet``.

    Returns:
        True where the stand-in is in use, False where a compiled mmcv is installed.

    Raises:
        ModuleNotFoundError: there is no mmcv at all; the message says what to install.
    """
    if NAME not in sys.modules:
        try:
            _import_yapf()
            compiled = find_spec(NAME)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "mmcv: not installed; wanted mmcv-lite==2.1.0 (or mmcv==2.1.0 with its compiled operators)", name="mmcv"
            ) from error
        if compiled is None:
            sys.modules[NAME] = _module()
    return isinstance(sys.modules.get(NAME), _StandIn)


def _import_yapf() -> None:
    """Import yapf, which mmengine does, too, with a cache of its own.

    yapf 0.43 keeps its grammar in the user's cache, under the final name before it is written out: of two processes
    that start together one finds an empty file there, and so does each later one if the writer was killed.
    """
    users = os.environ.get("XDG_CACHE_HOME")
    with TemporaryDirectory() as own:
        os.environ["XDG_CACHE_HOME"] = own
        try:
            import_module("yapf")
        finally:
            if users is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = users


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: Boxes (N, 4) as x1, y1, x2, y2.
        scores: Scores (N,).
        iou_threshold: Largest overlap: a box that overlaps a better one by more is dropped.
        offset: Pixels added to a width: 1 where a box from x1 to x2 is x2 − x1 + 1 wide, as old models count; else 0.

    Returns:
        Indices of the kept boxes, int64, by descending score.
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al., arXiv 1703.06870), written into ``output``.

    Args:
        features: Feature maps (B, C, H, W).
        rois: Regions (N, 5) as index into the batch, x1, y1, x2, y2 in pixels of the model's input.
        output: Result (N, C, aligned_height, aligned_width); overwritten.
        argmax_y, argmax_x: Tensors without use here, as they belong to maximum pooling.
        aligned_height, aligned_width: Number of bins per RoI.
        spatial_scale: Pixels of ``features`` per pixel of the input.
        sampling_ratio: Number of samples per bin and axis; 0 for as many as the bin has pixels.
        pool_mode: Kind of pooling, :data:`AVERAGE`.
        aligned: Convention of pixels: a value sits at the pixel's centre, that is, coordinates are shifted by half a
            pixel.

    Raises:
        MissingOperatorError: for maximum pooling.
    """
    _average_only(pool_mode)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_features: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` by ``features``, added to ``grad_features`` (B, C, H, W).

    The other arguments are those of the forward pass; ``grad_output`` has its output's shape.

    Raises:
        MissingOperatorError: for maximum pooling.
    """
    _average_only(pool_mode)
    grad_features.add_(
        torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_features.shape,
            sampling_ratio,
            aligned,
        )
    )


def _average_only(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise MissingOperatorError(_advice("roi_align with maximum pooling"))


def _advice(operator: str) -> str:
    return (
        f"{operator}: the model wants this operator of mmcv's compiled module, and torchvision has none; install a "
        "compiled mmcv in place of mmcv-lite: MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0"
    )


def _module() -> ModuleType:
    module = _StandIn(NAME, __doc__)
    # So that find_spec() answers instead of raising.
    module.__spec__ = ModuleSpec(NAME, loader=None)
    for operator in (nms, roi_align_forward, roi_align_backward):
        setattr(module, operator.__name__, operator)
    return module
