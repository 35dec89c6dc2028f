"""Integrated gradients of a batch as maps.

All else that the pass tells: :mod:`imagexplain.attribution.paths.path_integral`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward, check_ends, score_gradients
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check, classes_to_explain


@register(
    family="paths",
    needs={"gradients"},
    gradient_passes=lambda work: (work.options["steps"] + 2) * work.draws,
    speckled=True,
    peer=Peer("Captum", "IntegratedGradients"),
)
@isolated
def integrated_gradients(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    baselines: Tensor | None = None,
    steps: int = 50,
    rule: str = "gauss_legendre",
    chunk: int = 32,
    create_graph: bool = False,
) -> Tensor:
    """Integrated gradients: the difference from a baseline times the mean gradient on the straight path from it.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        baselines: Starting points (B, C, H, W) of the paths; zeros by default.
        steps: Number of path points of each image, at least 1.
        rule: Quadrature rule, a key of :data:`~imagexplain.attribution.paths.quadrature.RULES`.
        chunk: Largest number of path points evaluated at once.
        create_graph: Maps stay differentiable, with respect to the model's parameters and to images that require a
            gradient, so that they can be part of a training loss.

    Returns:
        (B, C, H, W), signed, in units of the score; sums to f(x) − f(b) but for the quadrature's error.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Sundararajan, Taly, Yan 2017, arXiv 1703.01365, equation 1.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import integrated_gradients
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> maps = integrated_gradients(network, images, targets=3, steps=200)
        >>> allclose(maps.sum((1, 2, 3)), (network(images) - network(0 * images))[:, 3], atol=1e-2)
        True
    """
    check(images, chunk)
    end = images if create_graph else images.detach()
    begin = torch.zeros_like(end) if baselines is None else baselines.detach()
    check_ends(end, begin)
    chosen = quadrature(rule, steps)
    classes = classes_to_explain(model, images, targets, chunk)
    nodes = chosen.nodes.to(end).view(-1, 1, 1, 1)
    total = torch.zeros_like(begin, dtype=torch.promote_types(end.dtype, torch.float32))
    weights = chosen.weights.to(total).view(-1, 1, 1, 1)
    # Not path.integrate, which evaluates both ends too, to tell how far the quadrature is off.
    count = len(end) * len(nodes)
    for rows in torch.arange(count, device=end.device).split(rows_at_once(count, chunk, end)):
        owner, step = rows // len(nodes), rows % len(nodes)
        points = torch.lerp(begin[owner], end[owner], nodes[step])
        _, gradients = score_gradients(model, points, classes[owner], create_graph=create_graph)
        total.index_add_(0, owner, weights[step] * gradients)
    return ((end - begin) * total).to(images.dtype)
