"""Class activation maps: a layer's channels, weighted by what they or their gradients say of one class.

Most methods share one forward and one backward pass, which gives the layer's output A (B, K, h, w) and the gradient
G = ∂y/∂A of the target's score; each is then one small function of A and G. ShapleyCAM takes a second backward pass,
Smooth Grad-CAM++ one of each for every noisy copy; Eigen-CAM, KPCA-CAM and FEM need no gradient, nor do Score-CAM,
SS-CAM and Ablation-CAM, which evaluate channel by channel. Every map is ReLU'd and otherwise as the formula gives it:
not scaled.

Our own, for Captum has only Grad-CAM (without second derivatives or token layers), and pytorch_grad_cam scales every
map to 0..1 in NumPy.

All take the same arguments beside those of their own, but for ``create_graph``, which Ablation-CAM, FEM, KPCA-CAM,
Score-CAM, Smooth Grad-CAM++ and SS-CAM do not take.

Args:
    model: Module in ``eval()`` that turns (B, C, H, W) into scores (B, classes); left as it was.
    images: Images (B, C, H, W) in model-input space.
    targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
    layer: Dotted name of the layer or the module itself; None for
        :func:`imagexplain.attribution.network.layers.default_layer`, whose search costs one further pass of one image.
        Outputs may be maps, channels-last maps or tokens.
    upsample: Size of the map: the images' (bilinear, ``align_corners=False``) if True, else the layer's.
    create_graph: Maps stay differentiable, with respect to the images and to the parameters.

Returns:
    (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

Raises:
    ValueError: a layer that is not there, does not run once, has no places or does not matter to the scores; targets as
        :func:`imagexplain.attribution.targets.classes_of`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.network.forward import check_graph
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import Layout, stated_layout
from imagexplain.attribution.targets import Targets, target_scores
from imagexplain.errors import LayerError

Rule = Callable[[Tensor, Tensor], Tensor]
"""Function from A and G, both (B, K, h, w), to a map (B, 1, h, w) before its ReLU."""

ScoreRule = Callable[[Tensor, Targets], Tensor]
"""Function from scores (B, classes) and targets to the value (B,) of each image whose gradient is G."""


def activation_map(
    rule: Rule,
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    layer: Layer,
    upsample: bool,
    create_graph: bool,
    score_rule: ScoreRule = target_scores,
) -> Tensor:
    """Compute the map that a rule gives, from the arguments that all methods take."""
    module = chosen_layer(model, images, layer)
    scores, activation = scores_and_activation(model, images, module, create_graph=create_graph)
    check_graph(scores.requires_grad)
    with torch.enable_grad():
        score = score_rule(scores, targets).sum()  # rows do not interact
        (gradient,) = torch.autograd.grad(score, activation, create_graph=create_graph)
    layout = read_layout(model, module, images, gradient)
    with torch.set_grad_enabled(create_graph):
        raw = rule(layout.maps(activation), layout.maps(gradient))
        return shown(raw, images, upsample, create_graph)


def read_layout(model: nn.Module, layer: nn.Module, images: Tensor, gradient: Tensor) -> Layout:
    """Layout of a layer's output, given the gradient (B, …) by it.

    Raises:
        LayerError: no layout, or a layer of tokens of which the scores read only those before the patches.
    """
    layout = stated_layout(model, layer, gradient.shape, images.shape)
    if layout.prefix and gradient.any() and not layout.maps(gradient).any():
        read = f"got one of which they read only the {layout.prefix} tokens before the patches"
        raise LayerError("layer", f"wanted one on whose places the scores depend, {read}")
    return layout


def by_mean_gradient(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM's rule: each channel weighted by its mean gradient."""
    return weighted(activation, gradient.mean((2, 3)))


def weighted(activation: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum Σ_k w_k A_k: (B, K, h, w) and (B, K) to (B, 1, h, w)."""
    return torch.einsum("bk,bkhw->bhw", weights, activation).unsqueeze(1)


def shown(raw: Tensor, images: Tensor, upsample: bool, create_graph: bool = False) -> Tensor:
    """Positive part of a map (B, 1, h, w), resized to the images, (B, 1, H, W), where that is wanted."""
    positive = raw.relu() if create_graph else raw.detach().relu()
    if not upsample:
        return positive
    return F.interpolate(positive, images.shape[-2:], mode="bilinear", align_corners=False)


def channel_masks(maps: Tensor, images: Tensor) -> Tensor:
    """Masks (n, 1, H, W) of channels (n, h, w): resized to the images, bilinear, scaled to 0..1; 0 for a constant."""
    masks = F.interpolate(maps.unsqueeze(1), images.shape[-2:], mode="bilinear", align_corners=False)
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    return (masks - low) / torch.where(high > low, high - low, 1.0)
