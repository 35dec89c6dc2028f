"""Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import read_layout, shown, weighted
from imagexplain.attribution.methods.smoothgrad import noisy_copies
from imagexplain.attribution.network.forward import check_graph, isolated, rows_at_once
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.quotients import quotient
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, classes_of, target_scores
from imagexplain.errors import ArgumentError


@register(
    family="class activation",
    needs={"gradients", "module"},
    gradient_passes=lambda work: work.options["samples"],
    coarse=True,
    tried_by="grad_cam",
)
@isolated
def smoothgrad_cam_plusplus(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    samples: int = 10,
    std: float = 0.15,
    seed: int = 0,
    layer: Layer = None,
    upsample: bool = True,
    chunk: int = 32,
) -> Tensor:
    """Smooth Grad-CAM++: Σ_k A_k Σ α ⊙ relu(Ḡ), α = mean G² / (2 mean G² + ΣA_k · mean G³), means over noisy copies.

    A is the clean image's activation. The numerator of α is Grad-CAM++'s second derivative, as in torchcam, where the
    paper writes the first; the gradient that α weights is the mean Ḡ too, where torchcam takes the last copy's. Every
    image gets the same noise. Arguments, result and errors are those of all class activation maps, see
    :mod:`imagexplain.attribution.class_activation_maps`, and:

    Args:
        model, images, targets, layer, upsample: Arguments that all class activation maps share.
        samples: Number of noisy copies of each image.
        std: Standard deviation of the noise, as a fraction of the image's range.
        seed: Seed of the noise.
        chunk: Largest number of copies evaluated at once.

    Raises:
        ValueError: as all class activation maps, samples or chunk below 1, or a negative deviation.

    Source: Omeiza et al. 2019, "Smooth Grad-CAM++", arXiv 1908.01224, section 3. Own, for Captum has no such method.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import smoothgrad_cam_plusplus
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = smoothgrad_cam_plusplus(network, rand(2, 3, 8, 8), targets=[1, 4], samples=4)
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    for name, value in (("samples", samples), ("chunk", chunk)):
        if value < 1:
            raise ArgumentError(name, f"wanted at least 1, got {value}")
    if not 0 <= std < float("inf"):
        raise ArgumentError("std", f"wanted a fraction of the image's range, 0 or more, got {std}")
    module = chosen_layer(model, images, layer)
    with torch.no_grad():
        scores, activation = scores_and_activation(model, images, module)
    classes, activation = classes_of(scores, targets), activation.detach()
    powers = torch.zeros(3, *activation.shape, dtype=torch.float64, device=activation.device)
    for b, image in enumerate(images.detach()):
        for copies in noisy_copies(image, samples, std, seed, rows_at_once(samples, chunk, images)):
            gradient = _gradients(model, module, copies, classes[b]).double()
            for power in (1, 2, 3):
                powers[power - 1, b] += (gradient**power).sum(0) / samples
    layout = read_layout(model, module, images, powers[0])
    first, second, third = (layout.maps(mean) for mean in powers)
    maps = layout.maps(activation)
    share = quotient(second, 2 * second + maps.double().sum((2, 3), keepdim=True) * third)
    return shown(weighted(maps, (share * first.relu()).sum((2, 3)).to(maps)), images, upsample)


def _gradients(model: nn.Module, module: nn.Module, copies: Tensor, target: Tensor) -> Tensor:
    """Gradients (n, …) of a class's score by the layer's output, for copies of one image."""
    scores, activation = scores_and_activation(model, copies, module)
    check_graph(scores.requires_grad)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(target_scores(scores, target.expand(len(copies))).sum(), activation)
    return gradient
