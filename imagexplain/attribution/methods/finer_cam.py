"""Finer-CAM: Grad-CAM of what tells the class from those that score like it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import activation_map, by_mean_gradient
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of
from imagexplain.errors import ArgumentError


@register(
    family="class activation",
    needs={"gradients", "module"},
    coarse=True,
    tried_by="grad_cam",
    peer=Peer("pytorch-grad-cam", "FinerCAM"),
)
@isolated
def finer_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    comparisons: int = 3,
    strength: float = 1.0,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Finer-CAM: Grad-CAM of Σ_d p_d (y_c − α y_d) / Σ_d p_d over the classes d whose scores are nearest to y_c.

    p is the softmax of all scores, a function of the layer's output too, as in the authors' code; α is ``strength``.
    Arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`, and:

    Args:
        model, images, targets, layer, upsample, create_graph: Arguments that all class activation maps share.
        comparisons: Number of classes that the target is told from, those with the least |y_d − y_c|; all others where
            there are no more. 0 is Grad-CAM, and the only number for scores of which a softmax says nothing.
        strength: Factor α of their scores, 0 to 1 in the paper: 0 shows what supports the class, 1 what it alone has.

    Raises:
        ValueError: as all class activation maps, or a negative number of comparisons or strength.

    Source: Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation", CVPR 2025,
    arXiv 2501.11309; the authors' github.com/Imageomics/Finer-CAM.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import finer_cam, grad_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> finer_cam(network, images, targets=[1, 4]).shape
        torch.Size([2, 1, 8, 8])
        >>> finer_cam(network, images, 1, comparisons=0).equal(grad_cam(network, images, 1))
        True
    """
    if comparisons < 0:
        raise ArgumentError("comparisons", f"wanted at least 0, got {comparisons}")
    if not 0 <= strength < float("inf"):
        raise ArgumentError("strength", f"wanted a number of at least 0, got {strength}")
    difference = partial(_difference, comparisons=comparisons, strength=strength)
    return activation_map(by_mean_gradient, model, images, targets, layer, upsample, create_graph, difference)


def _difference(scores: Tensor, targets: Targets, *, comparisons: int, strength: float) -> Tensor:
    """Mean difference (B,) of the target's score from those of the nearest classes, by their probability."""
    classes = classes_of(scores, targets).unsqueeze(1)
    own = scores.gather(1, classes)
    distance = (scores - own).detach().abs().scatter(1, classes, torch.inf)
    count = min(comparisons, scores.shape[1] - 1)
    if count == 0:
        return own.squeeze(1)
    nearest = distance.argsort(dim=1, stable=True)[:, :count]
    rivals = scores.gather(1, nearest)
    share = rivals.softmax(1)  # of the softmax over all classes, the common divisor cancels
    return (share * (own - strength * rivals)).sum(1)
