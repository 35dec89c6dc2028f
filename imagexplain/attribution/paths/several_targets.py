"""Path integrals of several scores of one input, such as those of a caption's words, in one pass over the path.

The points of the path are evaluated once for all targets; each target then takes a backward pass of its own, which goes
no further back than its score depends: of a caption's word, over the words before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from imagexplain.attribution.groups.group_sums import group_sums
from imagexplain.attribution.network.forward import check_graph, class_scores, isolated
from imagexplain.attribution.paths.path_integral import Forward, PathIntegral, check_ends, points_on
from imagexplain.attribution.paths.quadrature import Quadrature
from imagexplain.attribution.targets import check_classes
from imagexplain.errors import ArgumentError


@isolated
def integrate_targets(
    forward: Forward,
    image: Tensor,
    baseline: Tensor,
    targets: Tensor,
    rule: Quadrature,
    *,
    chunk: int,
    groups: Tensor | None = None,
    before_chunk: Callable[[int], None] | None = None,
) -> list[PathIntegral]:
    """Average the gradients of several target scores of one input along its path.

    The same as :func:`imagexplain.attribution.paths.path_integral.integrate` of the input repeated for each target, but
    for the number of forward passes.

    Args:
        forward: Module or function from (N, C, H, W) to scores (N, classes), each row independent of the others.
        image: Input (C, H, W) in model-input space.
        baseline: Baseline (C, H, W) in the same space.
        targets: Class indices (K,).
        rule: Quadrature of the path.
        chunk: Largest number of path points evaluated at once.
        groups: Masks (G, H, W), bool: groups whose share of the gradient is also summed without its sign.
        before_chunk: Callback before each chunk, which gets the number of points left, ends included; what it raises
            ends the pass.

    Returns:
        K path integrals, in order.

    Raises:
        ValueError: shapes that do not match, or a chunk below 1.

    Example:
        >>> from torch import nn, ones, tensor, zeros
        >>> from imagexplain.attribution.paths.quadrature import quadrature
        >>> from imagexplain.attribution.paths.several_targets import integrate_targets
        >>> network, rule = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), quadrature("midpoint", 4)
        >>> both = integrate_targets(network, ones(3, 2, 2), zeros(3, 2, 2), tensor([4, 0]), rule, chunk=8)
        >>> len(both), max(abs(one.residual) for one in both) < 1e-5
        (2, True)
    """
    image, baseline = image.detach(), baseline.detach()
    check_targets(image, baseline, targets, chunk)
    accumulate = torch.promote_types(image.dtype, torch.float32)
    difference = image - baseline
    gradients = torch.zeros(len(targets), *image.shape, dtype=accumulate, device=image.device)
    absolute = None if groups is None else gradients.new_zeros(len(targets), len(groups))
    remaining = points_on(rule)
    pieces = -(-len(rule) // chunk)
    for nodes, weights in zip(rule.nodes.tensor_split(pieces), rule.weights.tensor_split(pieces), strict=True):
        if before_chunk is not None:
            before_chunk(remaining)
        remaining -= len(nodes)
        shares = weights.to(gradients)
        for place, (_, own) in enumerate(gradients_by_target(forward, on_path(image, baseline, nodes), targets)):
            gradients[place] += torch.tensordot(shares, own.to(accumulate), 1)
            if absolute is not None and groups is not None:
                absolute[place] += shares @ group_sums(own, difference, groups).abs().to(accumulate)
    if before_chunk is not None:
        before_chunk(remaining)
    with torch.no_grad():
        ends = [class_scores(forward, rows)[:, targets] for rows in torch.stack([baseline, image]).split(chunk)]
    start, end = torch.cat(ends).tolist()
    return [
        PathIntegral(
            difference=difference,
            gradient=gradients[place].clone(),
            score=end[place],
            baseline_score=start[place],
            evaluations=len(rule),
            absolute=None if absolute is None else absolute[place].clone(),
        )
        for place in range(len(targets))
    ]


def on_path(image: Tensor, baseline: Tensor, nodes: Tensor) -> Tensor:
    """Points (n, C, H, W) of the path from a baseline to an image (C, H, W), at the nodes (n,)."""
    return torch.lerp(baseline.unsqueeze(0), image.unsqueeze(0), nodes.to(image).view(-1, 1, 1, 1))


def gradients_by_target(forward: Forward, points: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each target's scores, (N,), and their gradients with respect to the points, (N, C, H, W).

    Where a score is NaN, its gradient is.
    """
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        scores = class_scores(forward, points)
        check_classes(scores, targets)
        check_graph(scores.requires_grad)
        columns = [scores[:, target] for target in targets.tolist()]
    for place, own in enumerate(columns, 1):
        (gradients,) = torch.autograd.grad(own.sum(), points, retain_graph=place < len(columns), allow_unused=True)
        check_graph(gradients is not None)
        unknown = own.detach().isnan().view(-1, 1, 1, 1)
        yield own.detach(), gradients.masked_fill(unknown, torch.nan) if unknown.any() else gradients


def check_targets(image: Tensor, baseline: Tensor, targets: Tensor, chunk: int) -> None:
    """Raise ArgumentError unless these are the ends (C, H, W) of a path, (K,) class indices and a chunk above 0."""
    if image.ndim != 3:
        raise ArgumentError("image", f"wanted (C, H, W), got {tuple(image.shape)}")
    if targets.ndim != 1 or not len(targets):
        raise ArgumentError("targets", f"wanted at least one class index, got {tuple(targets.shape)}")
    check_ends(image.expand(len(targets), *image.shape), baseline.expand(len(targets), *baseline.shape), targets)
    if chunk < 1:
        raise ArgumentError("chunk", f"wanted at least 1, got {chunk}")
