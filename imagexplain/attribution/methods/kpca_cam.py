"""KPCA-CAM: the first component of a layer's channels by kernel PCA."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import shown
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.principal_component import first_kernel_component
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_of
from imagexplain.errors import ArgumentError, LayerError

Kernel = Literal["sigmoid", "rbf", "linear"]

MOST_PLACES = 2500
"""Places of a layer, at most: a matrix of all pairs of them is decomposed, in seconds for so many."""


@register(
    family="class activation",
    needs={"module"},
    coarse=True,
    tried_by="grad_cam",
    peer=Peer("pytorch-grad-cam", "KPCA_CAM", "scikit-learn fixes the component's sign by its largest value"),
)
@isolated
@torch.no_grad()
def kpca_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    kernel: Kernel = "sigmoid",
    kernel_scale: float = 0.0,
    layer: Layer = None,
    upsample: bool = True,
) -> Tensor:
    """KPCA-CAM: √λ₁ v₁ of the centred matrix of kernels between a layer's places, the same for every class.

    A place is its K channels, less their means over all places. The sign is that of the mean activation's part in the
    component, as in :func:`imagexplain.eigen_cam`, which is this with the linear kernel. Targets are only checked.
    Arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`, and:

    Args:
        model, images, targets, layer, upsample: Arguments that all class activation maps share.
        kernel: Kernel of two places a and b: "sigmoid" for tanh(γ a·b + 1), "rbf" for exp(−γ ‖a − b‖²), "linear" for
            a·b.
        kernel_scale: Factor γ, at least 0; 0 for 1 / K.

    Raises:
        ValueError: as all class activation maps, an unknown kernel, a negative scale, or a layer of more than 2,500
            places.

    Source: Karmani et al. 2024, "KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA",
    arXiv 2410.00267; kernels and scale as in scikit-learn's ``KernelPCA``, which pytorch_grad_cam calls.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import eigen_cam, kpca_cam
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> kpca_cam(network, images, targets=1).shape
        torch.Size([2, 1, 8, 8])
        >>> allclose(kpca_cam(network, images, kernel="linear"), eigen_cam(network, images), atol=1e-4)
        True
    """
    if kernel not in ("sigmoid", "rbf", "linear"):
        raise ArgumentError("kernel", f"wanted sigmoid, rbf or linear, got {kernel!r}")
    if not 0 <= kernel_scale < float("inf"):
        raise ArgumentError("kernel_scale", f"wanted a number of at least 0, got {kernel_scale}")
    module = chosen_layer(model, images, layer)
    scores, activation = scores_and_activation(model, images, module)
    classes_of(scores, targets)
    maps = stated_layout(model, module, activation.shape, images.shape).maps(activation.detach())
    if (places := maps.shape[2] * maps.shape[3]) > MOST_PLACES:
        raise LayerError("layer", f"wanted one with at most {MOST_PLACES} places, got {places}")
    return shown(first_kernel_component(maps, kernel, kernel_scale or 1 / maps.shape[1]), images, upsample)
