"""Refinement of a path until its integral is good enough, with points only where they change the answer.

The path is cut into intervals, and the gradient and the score are taken at their ends, once each. Three things are then
known of an interval without any further evaluation: how much of its rise of the score the trapezoid rule misses, how
much every group's share changes from one end to the other, and, from both, towards which end the weights must lean for
the interval to account for its rise. The intervals with the largest errors are halved, round by round.

Measured on the demonstration models (benchmarks/bench_refinement.py) this needs fewer gradients than uniform rules and
than steps placed by forward probes. Where the score jumps within a thousandth of the path, as behind a group
normalisation that starts from a constant image, bisection alone gets anywhere, but its verdict is wrong for a third of
what it calls converged: the groups' gradients change there faster than their ends tell.

It has to keep every gradient until the end, since the weights of a node are final only when its intervals are, so that
memory grows with the nodes; it is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imagexplain.attribution.groups.families import disjoint_parts
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.paths.path_integral import (
    Forward,
    PathIntegral,
    Steps,
    check_ends,
    relative_to,
    score_gradients,
)
from imagexplain.attribution.paths.several_targets import check_targets, on_path, target_gradients
from imagexplain.errors import ArgumentError

START = 4
"""Number of intervals at the start."""

MARKED = 0.5
"""Part of the squared error that the intervals halved in one round account for."""

DEVIATIONS = 2.0
"""Number of standard deviations of a group's error that must lie below the tolerance."""

MOST_BYTES = 2**28
"""Largest size of the gradients kept of one path, in bytes: 445 of 3×224×224 in float32."""


class OutOfTimeError(Exception):
    """Signal by which ``before_chunk`` ends a refinement early; the answer is then what has been reached."""


@dataclass(frozen=True)
class AdaptiveIntegral:
    """Path integral on nodes of its own, with estimates of its error.

    Errors are relative to the scale :func:`imagexplain.attribution.paths.path_integral.relative_to`, over the disjoint
    parts of the groups.

    Attributes:
        integral: Path integral; its ``evaluations`` count all nodes, the two ends included.
        nodes: Nodes (n,), float64, ascending from 0 to 1.
        weights: Quadrature weights (n,), float64, non-negative, of sum 1.
        converged: Convergence: all three errors that follow are within the tolerance.
        stability: Largest change of a group's attribution by the last refinement.
        missed: Residual of the trapezoid rule, without the leaning of the weights: its error in the score difference.
        uncertainty: Two standard deviations of the group whose attribution is least certain.
    """

    integral: PathIntegral
    nodes: Tensor
    weights: Tensor
    converged: bool
    stability: float
    missed: float
    uncertainty: float


@dataclass(frozen=True)
class _Verdict:
    """Errors of a path at one check; ``split`` holds the intervals to halve, none when the path is finished."""

    estimate: Tensor
    weights: Tensor
    stability: float
    missed: float
    uncertainty: float
    converged: bool
    split: Tensor


@dataclass
class _Path:
    """One path and everything seen of it, in the order of the nodes; float64 on the CPU but for the gradients.

    Attributes:
        difference: Difference Δ (C, H, W).
        atoms: Disjoint part that each pixel lies in, (H·W,) int64.
        members: Membership (A, G), float64, 1 where a part lies in a group; the whole image is the last group.
        tolerance: Relative tolerance.
        most: Largest number of nodes.
        nodes: Nodes (n,).
        scores: Scores (n,).
        shares: Sums Σ ∇f·Δ over each part, (n, A).
        gradients: List of n gradients (C, H, W) in the model's dtype.
    """

    difference: Tensor
    atoms: Tensor
    members: Tensor
    tolerance: float
    most: int
    nodes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    scores: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    shares: Tensor = field(init=False)
    gradients: list[Tensor] = field(default_factory=list)
    verdict: _Verdict | None = None

    def __post_init__(self) -> None:
        self.shares = torch.zeros(0, len(self.members), dtype=torch.float64)

    def add(self, nodes: Tensor, scores: Tensor, gradients: Tensor) -> None:
        """Put new nodes in their places."""
        accumulate = torch.promote_types(gradients.dtype, torch.float32)
        products = gradients.to(accumulate) * self.difference
        per_pixel = products.sum(1, dtype=torch.float64).flatten(1)  # (m, H·W)
        shares = per_pixel.new_zeros(len(self.members), len(nodes)).index_add_(0, self.atoms, per_pixel.T)
        nodes = torch.cat([self.nodes, nodes])
        order = nodes.argsort()
        self.nodes = nodes[order]
        self.scores = torch.cat([self.scores, scores.double().cpu()])[order]
        self.shares = torch.cat([self.shares, shares.T.cpu()])[order]
        kept = [*self.gradients, *gradients]
        self.gradients = [kept[index] for index in order.tolist()]

    def judge(self) -> _Verdict:
        """Judge the path by what has been seen since the last time."""
        if self.verdict is None:  # the first refinement is that of every other node
            coarse = _weights(self.nodes[::2], self.scores[::2], self.shares[::2])
            before = coarse @ self.shares[::2]
        else:
            before = self.verdict.estimate
        self.verdict = _verdict(self, before)
        return self.verdict


@isolated
def integrate_adaptive(
    forward: Forward,
    inputs: Tensor,
    baselines: Tensor,
    targets: Tensor,
    groups: Sequence[Tensor | None],
    tolerances: Tensor,
    *,
    chunk: int,
    most: Sequence[int] | int,
    keep_steps: Sequence[bool] | bool = False,
    most_bytes: int = MOST_BYTES,
    before_chunk: Callable[[int], None] | None = None,
) -> list[AdaptiveIntegral]:
    """Integrate the gradient of each input's target score along its path to a tolerance.

    A path is good enough when the trapezoid rule's residual, the largest change of a group's attribution by the last
    refinement, and two standard deviations of every group's error are all within its tolerance. All paths of a batch
    share the chunks of each round; which nodes a path takes depends on that path alone. No point is evaluated twice.

    The standard deviation takes the gradient between two nodes for a random walk that starts and ends as it was seen:
    over an interval of width h whose ends differ by d in a group, its integral strays by h·d/√12 from the trapezoid.
    So does a gradient with one jump at an unknown place, as of a piecewise linear model. Smooth models stray less.

    Args:
        forward: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        inputs: Inputs (B, C, H, W) in model-input space.
        baselines: Baselines (B, C, H, W) in the same space.
        targets: Class indices (B,).
        groups: Masks (S, H, W) of each input, bool, which may overlap; None for the whole image as the only group,
            which is always one of them.
        tolerances: Relative errors (B,) to reach, above 0.
        chunk: Largest number of path points evaluated at once.
        most: Largest number of gradients taken of each path, or of all; the first five are always taken.
        keep_steps: Choice for each input, or for all, to return the gradient and the point of every node.
        most_bytes: Largest size of the gradients kept of each path, in bytes; a second bound on their number.
        before_chunk: Callback before each chunk, which gets the number of points left in this round. If it raises
            :class:`OutOfTimeError`, what has been reached is returned and is not converged.

    Returns:
        B results, in order. Where a score or a gradient is not finite, refinement ends: the residual is not finite
        either, and the result is not converged.

    Raises:
        OutOfTimeError: raised by ``before_chunk`` before every path had its first nodes.
        ValueError: shapes or lengths that do not match, a tolerance that is not above 0, or a chunk below 1.

    Source: the estimate of the error is the variance of a Brownian bridge's integral; marking a fixed part of the
    error is Dörfler, "A convergent adaptive algorithm for Poisson's equation", SIAM J. Numer. Anal. 33 (1996).
    """
    inputs, baselines, count = inputs.detach(), baselines.detach(), len(inputs)
    caps = [most] * count if isinstance(most, int) else list(most)
    keep = [keep_steps] * count if isinstance(keep_steps, bool) else list(keep_steps)
    _check(inputs, baselines, targets, groups, tolerances, caps, keep, chunk)
    room = most_bytes // (inputs[0].numel() * inputs.element_size()) if count else 0
    paths = [
        _path(inputs[b] - baselines[b], groups[b], tolerances[b].item(), max(START + 1, min(caps[b], room)))
        for b in range(count)
    ]
    finished = _refine(
        paths, lambda wanted: _evaluate(forward, inputs, baselines, targets, paths, wanted, chunk, before_chunk)
    )
    return [_result(path, inputs[b], baselines[b], keep=keep[b], finished=finished[b]) for b, path in enumerate(paths)]


@isolated
def integrate_targets_adaptive(
    forward: Forward,
    image: Tensor,
    baseline: Tensor,
    targets: Tensor,
    groups: Tensor | None,
    tolerance: float,
    *,
    chunk: int,
    most: int,
    most_bytes: int = MOST_BYTES,
    before_chunk: Callable[[int], None] | None = None,
) -> list[AdaptiveIntegral]:
    """Integrate the gradients of several target scores of one input along its path to a tolerance.

    The same as :func:`integrate_adaptive` of the input repeated for each target, but a point that several targets take
    in one round is evaluated once, as in :mod:`imagexplain.attribution.paths.several_targets`.

    Args:
        forward: Module or function from (N, C, H, W) to scores (N, classes), each row independent of the others.
        image: Input (C, H, W) in model-input space.
        baseline: Baseline (C, H, W) in the same space.
        targets: Class indices (K,).
        groups: Masks (S, H, W), bool, as for :func:`integrate_adaptive`.
        tolerance: Relative error to reach, above 0.
        chunk: Largest number of path points evaluated at once.
        most: Largest number of gradients taken of each target.
        most_bytes: Largest size of the gradients kept of all targets, in bytes.
        before_chunk: Callback before each chunk, as for :func:`integrate_adaptive`.

    Returns:
        K results, in order.

    Raises:
        OutOfTimeError: raised by ``before_chunk`` before every target had its first nodes.
        ValueError: shapes that do not match, a tolerance that is not above 0, or a chunk below 1.
    """
    image, baseline = image.detach(), baseline.detach()
    check_targets(image, baseline, targets, chunk)
    _check_tolerance([groups], torch.tensor([tolerance]), image.shape[1:])
    room = most_bytes // (image.numel() * image.element_size() * len(targets))
    paths = [_path(image - baseline, groups, tolerance, max(START + 1, min(most, room))) for _ in targets]

    def evaluate(wanted: Sequence[Tensor]) -> None:
        nodes = torch.cat(list(wanted)).unique()  # in ascending order
        remaining = len(nodes)
        for alpha in nodes.tensor_split(-(-remaining // chunk)):
            if before_chunk is not None:
                before_chunk(remaining)
            remaining -= len(alpha)
            taken = [torch.isin(alpha, own) for own in wanted]
            chosen = [place for place, own in enumerate(taken) if own.any()]
            asked = targets[torch.tensor(chosen, device=targets.device)]
            found = zip(*target_gradients(forward, on_path(image, baseline, alpha), asked), strict=True)
            for place, (scores, gradients) in zip(chosen, found, strict=True):
                own = taken[place].to(scores.device)
                paths[place].add(alpha[taken[place]], scores[own], gradients[own])

    finished = _refine(paths, evaluate)
    return [
        _result(path, image, baseline, keep=False, finished=done) for path, done in zip(paths, finished, strict=True)
    ]


def _refine(paths: Sequence[_Path], evaluate: Callable[[Sequence[Tensor]], None]) -> list[bool]:
    """Refine paths, round by round, until each is finished or time is out; tell which are finished.

    Args:
        paths: Paths without nodes.
        evaluate: Function that adds the nodes, given for each path, to the paths.
    """
    wanted = [_start(path) for path in paths]
    while any(map(len, wanted)):
        try:
            evaluate(wanted)
        except OutOfTimeError:
            if any(path.verdict is None for path in paths):
                raise
            break
        wanted = [_next(path) if len(nodes) else nodes for path, nodes in zip(paths, wanted, strict=True)]
    return [len(nodes) == 0 for nodes in wanted]


def _path(difference: Tensor, masks: Tensor | None, tolerance: float, most: int) -> _Path:
    if masks is None:
        masks = torch.zeros(0, *difference.shape[1:], dtype=torch.bool)
    parts = disjoint_parts(masks.cpu())
    members = torch.cat([parts.members, torch.ones(len(parts.members), 1, dtype=torch.bool)], 1)
    return _Path(difference, parts.atoms.flatten().to(difference.device), members.double(), tolerance, most)


def _start(path: _Path) -> Tensor:
    """First nodes of a path: the ends alone where they are the same point."""
    return torch.linspace(0, 1, (START if path.difference.any() else 1) + 1, dtype=torch.float64)


def _next(path: _Path) -> Tensor:
    """Middles of the intervals to halve, after a look at what was seen; none when the path is finished."""
    split = path.judge().split
    return (path.nodes[split] + path.nodes[split + 1]) / 2


def _evaluate(
    forward: Forward,
    inputs: Tensor,
    baselines: Tensor,
    targets: Tensor,
    paths: Sequence[_Path],
    wanted: Sequence[Tensor],
    chunk: int,
    before_chunk: Callable[[int], None] | None,
) -> None:
    """Take score and gradient at the wanted nodes of all paths, laid end to end and cut evenly."""
    owners = torch.repeat_interleave(torch.arange(len(paths)), torch.tensor(list(map(len, wanted))))
    nodes = torch.cat(list(wanted))
    remaining = len(nodes)
    pieces = -(-remaining // chunk)
    for owner, alpha in zip(owners.tensor_split(pieces), nodes.tensor_split(pieces), strict=True):
        if before_chunk is not None:
            before_chunk(remaining)
        remaining -= len(owner)
        rows = owner.to(inputs.device)
        points = torch.lerp(baselines[rows], inputs[rows], alpha.to(inputs).view(-1, 1, 1, 1))
        scores, gradients = score_gradients(forward, points, targets[rows])
        for b in owner.unique_consecutive().tolist():
            own = (owner == b).nonzero().flatten()
            first, last = int(own[0]), int(own[-1]) + 1
            paths[b].add(alpha[first:last], scores[first:last], gradients[first:last].clone())


def _weights(nodes: Tensor, scores: Tensor, shares: Tensor) -> Tensor:
    """Quadrature weights (n,): the trapezoid rule's, leaning in each interval towards the end that explains its rise.

    An interval of width h has the integral h·((½ − s)·g₀ + (½ + s)·g₁). With one jump of the gradient inside, as at a
    kink of a piecewise linear model, there is an s for which this is exact in every pixel, and the rise of the score
    tells it. Where parts change in opposite directions the rise tells little of each of them, and s is kept small.
    """
    width, change = _changes(nodes, shares)
    total = change.sum(1)
    spread = torch.maximum(total.square(), change.square().sum(1))
    lean = torch.where(spread > 0, _missed(nodes, scores, shares) * total / spread, 0.0).clamp(-0.5, 0.5)
    weights = torch.zeros_like(nodes)
    weights[:-1] += width * (0.5 - lean)
    weights[1:] += width * (0.5 + lean)
    return weights


def _changes(nodes: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Widths (n − 1,) of the intervals, and the change of each part's share over them, times the width, (n − 1, A)."""
    width = nodes.diff()
    return width, width.unsqueeze(1) * shares.diff(dim=0)


def _missed(nodes: Tensor, scores: Tensor, shares: Tensor) -> Tensor:
    """Rise (n − 1,) of the score over each interval that the trapezoid rule does not account for."""
    slope = shares.sum(1)
    return scores.diff() - nodes.diff() * (slope[:-1] + slope[1:]) / 2


def _verdict(path: _Path, before: Tensor) -> _Verdict:
    """Errors of a path, given its parts' attributions before the last refinement."""
    width, change = _changes(path.nodes, path.shares)
    missed = _missed(path.nodes, path.scores, path.shares)
    weights = _weights(path.nodes, path.scores, path.shares)
    estimate = weights @ path.shares
    by_group = (change @ path.members).abs()  # (n − 1, G)
    scale = relative_to((path.scores[-1] - path.scores[0]).item(), estimate)
    stability = ((estimate - before) @ path.members).abs().max().item() / scale
    residual = abs(missed.sum().item()) / scale
    uncertainty = DEVIATIONS * (by_group.square().sum(0) / 12).sqrt().max().item() / scale
    converged = all(error <= path.tolerance for error in (stability, residual, uncertainty))  # no NaN is
    finite = bool(path.scores.isfinite().all() and path.shares.isfinite().all())
    narrowest = 2 * torch.finfo(path.difference.dtype).eps  # below that, nodes coincide in the model's dtype
    error = torch.where(width > narrowest, missed.abs() + by_group.amax(1) / 2, 0.0)
    room = 0 if converged or not finite else path.most - len(path.nodes)
    split = _largest(error, room)
    return _Verdict(estimate, weights, stability, residual, uncertainty, converged, split)


def _largest(error: Tensor, room: int) -> Tensor:
    """Fewest intervals, largest first, that hold a fixed part of the squared error; at most ``room``."""
    order = error.argsort(descending=True, stable=True)
    held = error[order].square().cumsum(0)
    count = int((held < MARKED * held[-1]).sum()) + 1
    chosen = order[: min(count, room)]
    return chosen[error[chosen] > 0]


def _result(path: _Path, image: Tensor, baseline: Tensor, *, keep: bool, finished: bool) -> AdaptiveIntegral:
    verdict = path.verdict
    assert verdict is not None
    if len(verdict.weights) != len(path.nodes):  # stopped within a round: its nodes count
        verdict = path.judge()
    accumulate = torch.promote_types(path.difference.dtype, torch.float32)
    gradient = torch.zeros_like(path.difference, dtype=accumulate)
    for weight, row in zip(verdict.weights.tolist(), path.gradients, strict=True):
        gradient.add_(row.to(accumulate), alpha=weight)
    steps = None
    if keep:
        points = torch.lerp(baseline[None], image[None], path.nodes.to(image).view(-1, 1, 1, 1))
        steps = Steps(torch.stack(path.gradients), points, verdict.weights)
    return AdaptiveIntegral(
        integral=PathIntegral(
            difference=path.difference,
            gradient=gradient,
            score=path.scores[-1].item(),
            baseline_score=path.scores[0].item(),
            evaluations=len(path.nodes),
            steps=steps,
        ),
        nodes=path.nodes,
        weights=verdict.weights,
        converged=verdict.converged and finished,
        stability=verdict.stability,
        missed=verdict.missed,
        uncertainty=verdict.uncertainty,
    )


def _check(
    inputs: Tensor,
    baselines: Tensor,
    targets: Tensor,
    groups: Sequence[Tensor | None],
    tolerances: Tensor,
    most: Sequence[int],
    keep: Sequence[bool],
    chunk: int,
) -> None:
    check_ends(inputs, baselines, targets)
    lengths = (("groups", groups), ("tolerances", tolerances), ("most", most), ("keep_steps", keep))
    for name, given in lengths:
        if len(given) != len(inputs):
            raise ArgumentError(name, f"wanted one for each of {len(inputs)} inputs, got {len(given)}")
    _check_tolerance(groups, tolerances, inputs.shape[2:])
    if chunk < 1:
        raise ArgumentError("chunk", f"wanted at least 1, got {chunk}")


def _check_tolerance(groups: Sequence[Tensor | None], tolerances: Tensor, size: torch.Size) -> None:
    for masks in groups:
        if masks is not None and masks.shape[1:] != size:
            raise ArgumentError("groups", f"wanted masks of {tuple(size)}, got {tuple(masks.shape)}")
    if not (tolerances > 0).all():
        raise ArgumentError("tolerances", f"wanted numbers above 0, got {tolerances.tolist()}")
