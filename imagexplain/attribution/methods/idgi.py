"""IDGI: score differences along a straight path, shared out by the squared gradient: IG without its noise."""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward, check_ends, score_gradients
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, check, classes_to_explain
from imagexplain.errors import ArgumentError


@register(
    family="paths",
    needs={"gradients"},
    gradient_passes=lambda work: (work.options["steps"] + 1) * work.draws,
    speckled=True,
)
@isolated
def idgi(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    baselines: Tensor | None = None,
    steps: int = 50,
    chunk: int = 32,
    create_graph: bool = False,
) -> Tensor:
    """Important direction gradient integration (IDGI) on the straight path.

    map = Σ_j g_j² / ‖g_j‖² · (f(x_{j+1}) − f(x_j)) with g_j = ∇f(x_j) and x_j = b + j/steps · (x − b). Its sum is
    f(x) − f(b) with any number of steps, but for steps at whose start the gradient is 0: they have no direction, and
    what they change is given to no value.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        baselines: Starting points (B, C, H, W) of the paths; zeros by default.
        steps: Number of intervals of the path. The model is evaluated once more, at the image itself.
        chunk: Largest number of path points evaluated at once.
        create_graph: Maps stay differentiable, with respect to the model's parameters and to images that require a
            gradient, so that they can be part of a training loss.

    Returns:
        (B, C, H, W), in units of the score; its signs are those of the score differences.

    Raises:
        ValueError: steps or chunk below 1, or what does not fit the model.

    Source: Yang, Wang, Bilgic, CVPR 2023, arXiv 2303.14242.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import idgi
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> maps = idgi(network, images, targets=3)
        >>> allclose(maps.sum((1, 2, 3)), (network(images) - network(0 * images))[:, 3], atol=1e-5)
        True
    """
    if steps < 1:
        raise ArgumentError("steps", f"wanted at least 1, got {steps}")
    check(images, chunk)
    ends = images if create_graph else images.detach()
    begin = torch.zeros_like(ends) if baselines is None else baselines.detach()
    check_ends(ends, begin)
    classes = classes_to_explain(model, images, targets, chunk)
    nodes = torch.linspace(0, 1, steps + 1, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1)
    return torch.stack(
        [
            _along(model, b, x, kind, nodes, chunk, create_graph).to(images.dtype)
            for b, x, kind in zip(begin, ends, classes, strict=True)
        ]
    )


def _along(
    model: Forward, begin: Tensor, end: Tensor, kind: Tensor, nodes: Tensor, chunk: int, create_graph: bool
) -> Tensor:
    """Map of one path, (C, H, W) float64."""
    total = torch.zeros_like(begin, dtype=torch.float64)
    scores, shares = total.new_zeros(0), total.new_zeros(0, *end.shape)
    for alpha in nodes.split(rows_at_once(len(nodes), chunk, end)):
        points = torch.lerp(begin, end, alpha)  # meets both ends exactly
        more, gradients = score_gradients(model, points, kind.expand(len(points)), create_graph=create_graph)
        gradients = gradients.double()
        squares = (gradients / _norm(gradients)).square()
        # The last point of the chunk before waits for the score of this one's first.
        scores, shares = torch.cat([scores[-1:], more.double()]), torch.cat([shares[-1:], squares])
        total += torch.einsum("n, nchw -> chw", scores.diff(), shares[:-1])
    return total


def _norm(gradients: Tensor) -> Tensor:
    norm = gradients.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return norm.where(norm > 0, 1.0)
