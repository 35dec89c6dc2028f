"""Integration of a model's gradient along the straight path from a baseline to an input.

One streaming pass over the path serves integrated gradients (Sundararajan, Taly, Yan 2017, arXiv 1703.01365), the
gradient at every step, and everything that is a sum of integrated gradients over pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from imagexplain.attribution.groups.group_sums import group_sums
from imagexplain.attribution.network.forward import check_graph, class_scores, isolated
from imagexplain.attribution.paths.quadrature import Quadrature
from imagexplain.attribution.targets import Targets, target_scores
from imagexplain.errors import ArgumentError

Forward = Callable[[Tensor], Tensor]

MIN_PIXELS_APART = 96 * 96
"""Pixels of an input from which the two ends of a path are scored in forward passes of their own.

Below, those of a batch of two take longer, for the weights have to be read, than the gradients of two rows more.
"""


@dataclass(frozen=True)
class Steps:
    """Gradients and points at the nodes of one path.

    Attributes:
        gradients: Gradients (n, C, H, W) of the target's score.
        points: Model inputs (n, C, H, W) at which they were taken.
        weights: Quadrature weights (n,).
    """

    gradients: Tensor
    points: Tensor
    weights: Tensor


@dataclass(frozen=True)
class PathIntegral:
    """Gradient of one score, averaged along the path from a baseline to an input.

    Attributes:
        difference: Difference Δ = input − baseline (C, H, W).
        gradient: Mean gradient ḡ = Σ w_k ∇f(baseline + α_k Δ), (C, H, W), float32 or better.
        score: Score f(input).
        baseline_score: Score f(baseline).
        evaluations: Number of path points at which the gradient was taken (f(baseline) and f(input) come on top).
        steps: Gradients node by node, None unless they were asked for.
        absolute: Sums Σ w_k |Σ_{p∈S} ∇f(baseline + α_k Δ)·Δ| (G,) of the groups that were asked for.
    """

    difference: Tensor
    gradient: Tensor
    score: float
    baseline_score: float
    evaluations: int
    steps: Steps | None = None
    absolute: Tensor | None = None

    @property
    def attribution(self) -> Tensor:
        """Integrated gradients Δ ⊙ ḡ, (C, H, W), signed, in units of the score."""
        return self.difference * self.gradient

    @property
    def residual(self) -> float:
        """Residual f(input) − f(baseline) − Σ IG, what the quadrature missed; minus Captum's convergence delta."""
        return self.score - self.baseline_score - self.attribution.sum(dtype=torch.float64).item()

    @property
    def relative_residual(self) -> float:
        """Size of the residual, |residual|, relative to :func:`relative_to` for the whole image as the only part."""
        total = self.attribution.sum(dtype=torch.float64).reshape(1)
        return abs(self.residual) / relative_to(self.score - self.baseline_score, total)


def relative_to(score_difference: float, shares: Tensor) -> float:
    """Scale of every relative error and tolerance: the larger of |f(x) − f(b)| and Σ|ig_S|, at least 1e-6.

    Args:
        score_difference: Score difference f(x) − f(b).
        shares: Attributions ig_S of disjoint parts of the image, (A,).
    """
    return max(abs(score_difference), shares.abs().sum().item(), 1e-6)


@isolated
def integrate(
    forward: Callable[..., Tensor],
    inputs: Tensor,
    baselines: Tensor,
    targets: Tensor,
    rules: Sequence[Quadrature],
    *,
    chunk: int,
    arguments: Sequence[Tensor] = (),
    keep_steps: Sequence[bool] | bool = False,
    groups: Sequence[Tensor | None] | None = None,
    before_chunk: Callable[[int], None] | None = None,
) -> list[PathIntegral]:
    """Average the gradient of each input's target score along its path.

    The nodes of all paths are laid end to end and evaluated in chunks, so that short paths share a chunk with long
    ones, and memory depends on the chunk, not on the number of steps (but for the steps that are kept). Of both ends of
    each path the score alone is wanted: they go along with weight 0, or apart from :data:`MIN_PIXELS_APART` on.

    Args:
        forward: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        inputs: Inputs (B, C, H, W) in model-input space.
        baselines: Baselines (B, C, H, W) in the same space.
        targets: Class indices (B,).
        rules: Quadratures, B of them; they may differ in rule and length.
        chunk: Largest number of path points evaluated at once.
        arguments: Further arguments of forward, (B, ...) each, of which it gets the rows that belong to its points.
        keep_steps: Choice for each input, or for all, to keep the gradient and the point of every node.
        groups: Masks (G, H, W) of each input, bool: groups whose share of the gradient is also summed without its sign;
            the one thing about groups that cannot be had from the mean gradient afterwards.
        before_chunk: Callback before each chunk, which gets the number of points left, ends included; what it raises
            ends the pass.

    Returns:
        B path integrals, in order. Model parameters, buffers and their gradients are left untouched.

    Raises:
        ValueError: shapes or lengths that do not match, or a chunk below 1.

    Source: arXiv 1703.01365, equation 1, discretised as in section 5 with quadrature weights.

    Example:
        >>> from torch import nn, rand, tensor, zeros
        >>> from imagexplain.attribution.paths.path_integral import integrate
        >>> from imagexplain.attribution.paths.quadrature import quadrature
        >>> network, rules = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), [quadrature("midpoint", 10)]
        >>> (own,) = integrate(network, rand(1, 3, 8, 8), zeros(1, 3, 8, 8), tensor([2]), rules, chunk=16)
        >>> own.attribution.shape, abs(own.residual) < 1e-5
        (torch.Size([3, 8, 8]), True)
    """
    inputs, baselines, count = inputs.detach(), baselines.detach(), len(inputs)
    keep = [keep_steps] * count if isinstance(keep_steps, bool) else list(keep_steps)
    masks = [None] * count if groups is None else list(groups)
    _check(inputs, baselines, targets, rules, keep, masks, chunk)
    accumulate = torch.promote_types(inputs.dtype, torch.float32)
    gradient = torch.zeros(inputs.shape, dtype=accumulate, device=inputs.device)
    # In one piece: small tensors that outlive their chunk would lie between the large ones, and the heap would grow.
    along = inputs.shape[2] * inputs.shape[3] < MIN_PIXELS_APART
    scores = torch.empty(sum(map(points_on, rules)), dtype=inputs.dtype, device=inputs.device)
    kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(count)]
    absolute = [None if mask is None else gradient.new_zeros(len(mask)) for mask in masks]

    remaining = len(scores)
    for owner, nodes, weights in _chunks(rules, chunk, inputs.device, ends=along):
        if before_chunk is not None:
            before_chunk(remaining)
        # lerp meets both ends exactly, which baseline + 1 · Δ need not.
        points = torch.lerp(baselines[owner], inputs[owner], _per_row(nodes.to(inputs.dtype)))  # (chunk, C, H, W)
        further = [argument[owner] for argument in arguments]
        of_points = partial(_behind, forward, further) if further else forward
        point_scores, gradients = score_gradients(of_points, points, targets[owner])
        gradient.index_add_(0, owner, _per_row(weights.to(accumulate)) * gradients)
        scores[len(scores) - remaining :][: len(owner)] = point_scores
        remaining -= len(owner)
        for b in owner.unique_consecutive().tolist():
            own = owner == b
            if keep[b]:
                kept[b].append((gradients[own], points[own]))
            if (mask := masks[b]) is not None and (total := absolute[b]) is not None:
                shares = group_sums(gradients[own], inputs[b] - baselines[b], mask).abs()  # (nodes, G)
                total += weights[own].to(shares.dtype) @ shares

    if along:
        ends = [(path[0], path[-1]) for path in scores.split(list(map(points_on, rules)))]
    else:
        if before_chunk is not None:
            before_chunk(remaining)
        ends = list(zip(*_end_scores(forward, baselines, inputs, targets, arguments, chunk), strict=True))
    return [
        PathIntegral(
            difference=inputs[b] - baselines[b],
            gradient=gradient[b].clone(),  # not a view, which would keep the whole batch's alive
            score=ends[b][1].item(),
            baseline_score=ends[b][0].item(),
            evaluations=len(rules[b]),
            steps=_joined(kept[b], rules[b]) if keep[b] else None,
            absolute=absolute[b],
        )
        for b in range(count)
    ]


def points_on(rule: Quadrature) -> int:
    """Number of points that :func:`integrate` evaluates for a path with this rule: its nodes, and both ends."""
    return len(rule) + 2


def score_gradients(
    forward: Forward, points: Tensor, targets: Targets, *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Target score of each row, (N,), and its gradient with respect to that row, (N, C, H, W).

    Where a score is NaN, its gradient is. With ``create_graph`` both stay differentiable, with respect to the model's
    parameters and to points that have a graph.
    """
    if not (create_graph and points.requires_grad):
        points = points.detach().requires_grad_()
    # The fused kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():
        scores = target_scores(class_scores(forward, points), targets)
        check_graph(scores.requires_grad)
        # Rows do not interact, so the gradient of the sum holds each row's own gradient.
        (gradients,) = torch.autograd.grad(scores.sum(), points, create_graph=create_graph, allow_unused=True)
    check_graph(gradients is not None)
    gradients = nan_where_the_score_is(scores, gradients)
    return scores if create_graph else scores.detach(), gradients


def nan_where_the_score_is(scores: Tensor, gradients: Tensor) -> Tensor:
    """Gradients (N, C, H, W), NaN for rows whose score (N,) is: a ReLU lets no NaN back, and others could pass."""
    unknown = scores.detach().isnan()
    return gradients.masked_fill(_per_row(unknown), torch.nan) if unknown.any() else gradients


def check_ends(inputs: Tensor, baselines: Tensor, targets: Tensor | None = None) -> None:
    """Raise ArgumentError unless these are (B, C, H, W) ends of paths, their beginnings and, if any, (B,) classes."""
    if inputs.ndim != 4:
        raise ArgumentError("inputs", f"wanted (B, C, H, W), got {tuple(inputs.shape)}")
    if baselines.shape != inputs.shape:
        raise ArgumentError("baselines", f"wanted {tuple(inputs.shape)} like inputs, got {tuple(baselines.shape)}")
    if targets is not None and (targets.shape != (len(inputs),) or targets.is_floating_point()):
        raise ArgumentError(
            "targets", f"wanted {len(inputs)} class indices, got {tuple(targets.shape)} {targets.dtype}"
        )


def _end_scores(
    forward: Callable[..., Tensor],
    baselines: Tensor,
    inputs: Tensor,
    targets: Tensor,
    arguments: Sequence[Tensor],
    chunk: int,
) -> list[list[Tensor]]:
    """Target scores of the baselines and of the inputs, B each."""
    rows = [torch.cat([start, end]) for start, end in ((baselines, inputs), *((one, one) for one in arguments))]
    classes, found = torch.cat([targets, targets]), []
    with torch.no_grad():
        for part in torch.arange(len(classes), device=classes.device).split(chunk):
            points, *further = (row[part] for row in rows)
            found.append(target_scores(class_scores(partial(_behind, forward, further), points), classes[part]))
    scores = torch.cat(found)
    return [list(half) for half in scores.split(len(inputs))]


def _chunks(
    rules: Sequence[Quadrature], chunk: int, device: torch.device, *, ends: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Lay all paths end to end, each between its two ends or without, and cut them evenly: (owner, nodes, weights)."""
    sizes = [points_on(rule) if ends else len(rule) for rule in rules]
    owner = torch.repeat_interleave(torch.arange(len(rules)), torch.tensor(sizes))
    pad = (1, 1) if ends else (0, 0)
    nodes = torch.cat([F.pad(F.pad(rule.nodes, (pad[0], 0), value=0.0), (0, pad[1]), value=1.0) for rule in rules])
    weights = torch.cat([F.pad(rule.weights, pad) for rule in rules])
    pieces = -(-len(owner) // chunk)
    for rows in zip(*(values.tensor_split(pieces) for values in (owner, nodes, weights)), strict=True):
        yield rows[0].to(device), rows[1].to(device), rows[2].to(device)


def _behind(forward: Callable[..., Tensor], further: Sequence[Tensor], points: Tensor) -> Tensor:
    """Scores of points, with further arguments behind them."""
    return forward(points, *further)


def _per_row(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _joined(kept: list[tuple[Tensor, Tensor]], rule: Quadrature) -> Steps:
    gradients, points = (torch.cat(parts) for parts in zip(*kept, strict=True))
    ends = (len(gradients) - len(rule)) // 2
    inner = slice(ends, len(gradients) - ends)
    return Steps(gradients[inner], points[inner], rule.weights)


def _check(
    inputs: Tensor,
    baselines: Tensor,
    targets: Tensor,
    rules: Sequence[Quadrature],
    keep: Sequence[bool],
    masks: Sequence[Tensor | None],
    chunk: int,
) -> None:
    check_ends(inputs, baselines, targets)
    for name, given in (("rules", len(rules)), ("keep_steps", len(keep)), ("groups", len(masks))):
        if given != len(inputs):
            raise ArgumentError(name, f"wanted one for each of {len(inputs)} inputs, got {given}")
    if chunk < 1:
        raise ArgumentError("chunk", f"wanted at least 1, got {chunk}")
