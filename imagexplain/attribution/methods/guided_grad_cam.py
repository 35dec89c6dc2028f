"""Products of a fine map and a coarse one, as in Guided Grad-CAM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import by_mean_gradient, read_layout, shown
from imagexplain.attribution.network.forward import check_graph, isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.paths.path_integral import nan_where_the_score_is
from imagexplain.attribution.postprocess import normalize
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, target_scores
from imagexplain.errors import ArgumentError


def combine(first_map: Tensor, second_map: Tensor, *, normalized: bool = False) -> Tensor:
    """Multiply a fine map, reduced to one channel, by a coarse one, resized to it.

    A fine map of several channels is reduced to the one of largest absolute value at each pixel, with its sign
    (Simonyan et al. 2013, arXiv 1312.6034, section 3.1, but for the sign).

    Args:
        first_map: Fine maps (B, C, H, W), such as a gradient.
        second_map: Coarse maps (B, 1, h, w), such as a class activation map; resized bilinearly,
            ``align_corners=False``.
        normalized: Scaling of both maps to 0..1 before and of their product after, by
            :func:`~imagexplain.attribution.postprocess.normalize` with ``channels="max"``: only what is positive in
            both counts. This is the ``CombinedWrapper`` of pytorch_attribution, but for the 1e-5 that it adds to
            divisors.

    Returns:
        (B, 1, H, W), signed and differentiable by both; if normalized, in 0..1 and detached.

    Raises:
        ValueError: maps of other shapes.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import combine, grad_cam, gradient
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> product = combine(gradient(network, images, 1), grad_cam(network, images, 1), normalized=True)
        >>> product.shape, 0 <= product.min().item() <= product.max().item() <= 1
        (torch.Size([2, 1, 8, 8]), True)
    """
    if first_map.ndim != 4 or second_map.ndim != 4 or second_map.shape[:2] != (len(first_map), 1):
        given = f"{tuple(first_map.shape)} and {tuple(second_map.shape)}"
        raise ArgumentError("first_map, second_map", f"wanted (B, C, H, W) and (B, 1, h, w), got {given}")
    coarse = F.interpolate(second_map, first_map.shape[-2:], mode="bilinear", align_corners=False)
    if normalized:
        return normalize(normalize(first_map, channels="max") * normalize(coarse))
    highest, lowest = first_map.amax(1, keepdim=True), first_map.amin(1, keepdim=True)
    largest = torch.where(highest >= -lowest, highest, lowest)  # 15 times as fast as gathering argmax
    return largest * coarse


@register(
    family="combinations",
    needs={"gradients", "module", "nonlinearities"},
    speckled=True,
    sensitivity=True,
    peer=Peer("Captum", "GuidedGradCam"),
)
@isolated
def guided_grad_cam(model: nn.Module, images: Tensor, targets: Targets = None, *, layer: Layer = None) -> Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391, section 3.2).

    The paper keeps the three channels; here :func:`combine` reduces them. One forward pass serves both maps.

    Args:
        model, images, targets, layer: Arguments that all class activation maps share, see
            :mod:`imagexplain.attribution.class_activation_maps`.

    Returns:
        (B, 1, H, W), signed.

    Raises:
        ValueError: as in :mod:`imagexplain.attribution.class_activation_maps`.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import combine, grad_cam, guided_backprop, guided_grad_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> product = combine(guided_backprop(network, images, 1), grad_cam(network, images, 1))
        >>> guided_grad_cam(network, images, 1).equal(product)
        True
    """
    from imagexplain.attribution.methods.guided_backprop import GuidedReLUs

    check_visible(model, "nonlinearities")
    module, points = chosen_layer(model, images, layer), images.detach().requires_grad_()
    with GuidedReLUs() as relus:
        scores, activation = scores_and_activation(model, points, module, create_graph=True)
    relus.check_seen()
    check_graph(scores.requires_grad)
    with torch.enable_grad():
        score = target_scores(scores, targets)
        relus.guided = False
        (gradient,) = torch.autograd.grad(score.sum(), activation, retain_graph=True)
        relus.guided = True
        (fine,) = torch.autograd.grad(score.sum(), points, allow_unused=True)
    check_graph(fine is not None)
    layout, score = read_layout(model, module, images, gradient), score.detach()
    coarse = by_mean_gradient(layout.maps(activation.detach()), layout.maps(gradient))
    return combine(nan_where_the_score_is(score, fine), shown(coarse, images, upsample=True))
