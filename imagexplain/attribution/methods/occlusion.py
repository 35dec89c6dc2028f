"""Occlusion: the drop of a score when a window of the image is covered.

Not Captum's class, whose definition this is: it rounds to float32 at the end, sums in half precision where the model
does, and cannot fill a chunk with windows of several images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import isolated, rows_at_once, scores_of_copy
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values
from imagexplain.attribution.registry import Peer, Workload, register
from imagexplain.attribution.targets import Targets, check, classes_and_scores, target_scores
from imagexplain.errors import ArgumentError


def _windows(work: Workload) -> int:
    """Number of places of the window."""
    size, stride = work.options["size"], max(work.options["stride"], 1)
    return math.prod(-(-max(side - size, 0) // stride) + 1 for side in work.size)


@register(
    family="perturbation", forward_passes=lambda work: _windows(work) * work.draws, peer=Peer("Captum", "Occlusion")
)
@isolated
def occlusion(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    size: int = 15,
    stride: int = 8,
    fill: float | Tensor = 0.0,
    chunk: int = 64,
) -> Tensor:
    """Occlusion: the mean drop of the score over the windows that cover a pixel.

    Being a mean, as in Captum, it does not fade towards the borders, which fewer windows reach. The windows begin at
    multiples of the stride; the last of a row or column is cut off at the border, and so every pixel is covered.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        size: Side of the square window in pixels, at most H and W.
        stride: Distance between windows in pixels, 1 … size. At 224 px the defaults are 784 windows, stride 1 is
            44,100.
        fill: Values within a window in model-input space: a number or a tensor that broadcasts to (B, C, H, W).
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score: positive where covering lowers it. A window covers all channels.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901, section 4.2.

    Example:
        >>> from torch import ones
        >>> from imagexplain import occlusion
        >>> def brightness(rows):
        ...     return rows.sum((1, 2, 3)).unsqueeze(1)
        >>> occlusion(brightness, ones(1, 3, 4, 4), size=2, stride=2).unique()  # a window covers 2 · 2 · 3 ones
        tensor([12.])
    """
    check(images, chunk)
    covers = fill_values("fill", fill, images)
    height, width = images.shape[2:]
    if not 1 <= size <= min(height, width):
        raise ArgumentError("size", f"wanted 1..{min(height, width)}, the image's shorter side, got {size}")
    if not 1 <= stride <= size:
        raise ArgumentError("stride", f"wanted 1..{size}, the window's side, got {stride}")
    classes, scores = classes_and_scores(model, images, targets, chunk)
    tops, lefts = (torch.arange(0, side - size + stride, stride, device=images.device) for side in (height, width))
    windows = torch.cartesian_prod(tops, lefts)
    total = images.new_zeros((len(images), height, width), dtype=torch.promote_types(images.dtype, torch.float32))
    with torch.no_grad():
        count = len(images) * len(windows)
        for rows in torch.arange(count, device=images.device).split(rows_at_once(count, chunk, images)):
            owner = rows // len(windows)
            top, left = windows[rows % len(windows)].unbind(1)
            inside = _inside(top, height, size).unsqueeze(2) & _inside(left, width, size).unsqueeze(1)  # (rows, H, W)
            covered = torch.where(inside.unsqueeze(1), covers[owner], images[owner])
            drops = scores[owner] - target_scores(scores_of_copy(model, covered), classes[owner])
            total.index_add_(0, owner, drops.to(total.dtype).view(-1, 1, 1) * inside)
    reach = torch.outer(_inside(tops, height, size).sum(0), _inside(lefts, width, size).sum(0))  # windows on a pixel
    return (total / reach).unsqueeze(1)


def _inside(starts: Tensor, side: int, size: int) -> Tensor:
    """Mask (N, side), bool: the pixels of an axis that the interval from each start covers."""
    pixels = torch.arange(side, device=starts.device)
    return (pixels >= starts.unsqueeze(1)) & (pixels < starts.unsqueeze(1) + size)
