"""ShapleyCAM: channels weighted by their mean Shapley value, to the second order of the score."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from imagexplain.attribution.class_activation_maps import by_mean_gradient, read_layout, shown
from imagexplain.attribution.network.forward import check_graph, isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of, target_scores
from imagexplain.errors import ArgumentError

Utility = Literal["rest", "score"]


@register(
    family="class activation",
    needs={"gradients", "module"},
    gradient_passes=lambda work: 1,
    coarse=True,
    tried_by="grad_cam",
    peer=Peer("pytorch-grad-cam", "ShapleyCAM", tokens=False),
)
@isolated
def shapley_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    utility: Utility = "rest",
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """ShapleyCAM: Grad-CAM with G − ½ H·A in place of the gradient G, H the Hessian of the utility by the layer A.

    That is the Shapley value of a value of A, by A itself, where the utility is a polynomial of the second order; in a
    network that is linear behind the layer, all of H is the softmax's, and for the plain score the map is Grad-CAM's.
    H·A is the gradient of G·A: a second backward pass, no matrix. Arguments, result and errors are those of all class
    activation maps, see :mod:`imagexplain.attribution.class_activation_maps`, and:

    Args:
        model, images, targets, layer, upsample, create_graph: Arguments that all class activation maps share.
        utility: Value of the game: "rest" for the paper's residual softmax target, y_c + log softmax(y)_c, "score" for
            y_c alone, as where a softmax says nothing.

    Raises:
        ValueError: as all class activation maps, or an unknown utility.

    Source: Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025, arXiv 2501.06261, equations of
    sections 3.3 and 3.4; the author's github.com/caihuaiguang/pytorch-shapley-cam.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import grad_cam, shapley_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> shapley_cam(network, images, targets=[1, 4]).shape
        torch.Size([2, 1, 8, 8])
        >>> linear = shapley_cam(network, images, 1, utility="score", layer="1")
        >>> allclose(linear, grad_cam(network, images, 1, layer="1"))
        True
    """
    if utility not in ("rest", "score"):
        raise ArgumentError("utility", f"wanted rest or score, got {utility!r}")
    module = chosen_layer(model, images, layer)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
        scores, activation = scores_and_activation(model, images, module, create_graph=create_graph)
    check_graph(scores.requires_grad)
    with torch.enable_grad():
        value = target_scores(scores, targets)
        if utility == "rest":
            value = value + target_scores(scores.log_softmax(1), classes_of(scores, targets))
        (gradient,) = torch.autograd.grad(value.sum(), activation, create_graph=True)  # rows do not interact
        second = _hessian_product(gradient, activation, create_graph)
    layout = read_layout(model, module, images, gradient)
    with torch.set_grad_enabled(create_graph):
        raw = by_mean_gradient(layout.maps(activation), layout.maps(gradient - second / 2))
        return shown(raw, images, upsample, create_graph)


def _hessian_product(gradient: Tensor, activation: Tensor, create_graph: bool) -> Tensor:
    """Product H·A of the Hessian with the activation, of the activation's shape; 0 where the gradient is constant."""
    if not gradient.requires_grad:
        return torch.zeros_like(activation)
    (product,) = torch.autograd.grad(
        gradient, activation, grad_outputs=activation, create_graph=create_graph, allow_unused=True
    )
    return torch.zeros_like(activation) if product is None else product
