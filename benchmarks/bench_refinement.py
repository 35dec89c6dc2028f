"""Gradients that the shares of an image's groups cost, by the way in which the path's points are chosen.

    python -m benchmarks.bench_refinement [--models lanet bit] [--scenes 20] [--out benchmarks/results.json]

The served demonstration models explain held-out scenes; groups are the scene's objects and the cells of a 4×4 grid, and
the error is that of the worst group against a reference, relative to max(|f(x) − f(b)|, Σ|ig| over the disjoint parts).
The reference is the midpoint rule with 2,000 steps; where that itself misses more than a hundredth of the score, it is
250 midpoints in every halving of the path towards the baseline, in float64.

Costs count gradients; a forward pass without one counts a third.

The ways:
    midpoint, trapezoid, gauss_legendre   uniform rules, begun anew for every number of steps.
    tripling     the midpoint rule with 5, 15, 45, 135 steps, each on top of the one before. No gradient is kept.
    nuig_m, nuig_m_root   m + 1 forward probes, then midpoint steps in each of the m intervals in proportion to the
                 probed |Δf| or its root, at least one each (arXiv 2302.11107; the root was the better one).
    residual, change, both   bisection of the intervals with the largest error: what the trapezoid rule misses of the
                 score; what the groups' shares change by; their sum. Trapezoid weights.
    refine       as both, with weights that lean as imagexplain/attribution/paths/adaptive.py says.

The second table lets that module stop by itself and looks at whether the tolerance was kept.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from evaluation.machine import machine
from imagexplain.archive.classifier_network import of_sources
from imagexplain.archive.spec import ClassifierSpec, select
from imagexplain.attribution.groups.families import disjoint_parts
from imagexplain.attribution.paths.adaptive import MARKED, START, integrate_adaptive
from imagexplain.attribution.paths.path_integral import relative_to, score_gradients
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.models.optimize.folding import fold
from imagexplain.models.optimize.specialised_convolutions import specialise
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from training.scenes import SceneSettings, scene
from training.train_classifier import HELD_OUT_SEED

BUDGETS = (5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 300)
ERRORS = (1e-1, 3e-2, 1e-2, 3e-3)
TOLERANCES = (1e-1, 3e-2, 1e-2)
BASELINES = ("zero", "black")
CHUNK = 32

Curve = list[tuple[float, float]]
"""Points (cost, error) with growing cost."""


@dataclass
class Case:
    """One image, baseline and target, with everything evaluated so far; group space is float64.

    Attributes:
        network: Network of the model as served.
        image: (C, H, W) input x.
        baseline: (C, H, W) baseline b.
        target: (1,) class.
        masks: (G, H, W) bool groups.
        seen: Score and shares of the disjoint parts, by node.
    """

    network: nn.Module
    image: Tensor
    baseline: Tensor
    target: Tensor
    masks: Tensor
    seen: dict[float, tuple[float, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = disjoint_parts(self.masks)
        self.parts = nn.functional.one_hot(parts.atoms.flatten()).double()  # (H·W, A)
        self.members = torch.cat([parts.members, torch.ones(len(parts.members), 1, dtype=torch.bool)], 1).double()
        (first, last), _ = self.at(torch.tensor([0.0, 1.0], dtype=torch.float64))
        self.rise = (last - first).item()
        uniform = quadrature("midpoint", 2000)
        self.reference = uniform.weights @ self.evaluate(uniform.nodes)[1]
        self.uniform_residual = abs(self.rise - self.reference.sum().item()) / self.scale
        if self.graded:
            self.reference = self.graded_reference()

    @property
    def graded(self) -> bool:
        """Tell whether 2,000 uniform steps are no reference."""
        return self.uniform_residual > 1e-2

    @property
    def scale(self) -> float:
        """The scale that errors are relative to."""
        return relative_to(self.rise, self.reference)

    def graded_reference(self) -> Tensor:
        """(A,) shares by midpoints in every halving [2⁻ᵏ⁻¹, 2⁻ᵏ] down to 2⁻²⁶, in float64."""
        ends = torch.cat([torch.zeros(1), 2.0 ** torch.arange(-26, 1)]).double()
        width = ends.diff().repeat_interleave(250) / 250
        nodes = ends[:-1].repeat_interleave(250) + width * (torch.arange(len(width)) % 250 + 0.5)
        double = copy.copy(self)
        double.network = copy.deepcopy(self.network).double()
        double.image, double.baseline = self.image.double(), self.baseline.double()
        _, shares = double.evaluate(nodes)
        return width @ shares

    def evaluate(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (n,) and shares (n, A) at nodes (n,)."""
        scores, shares = [], []
        for alpha in nodes.split(CHUNK):
            points = torch.lerp(self.baseline[None], self.image[None], alpha.to(self.image).view(-1, 1, 1, 1))
            score, gradients = score_gradients(self.network, points, self.target.expand(len(alpha)))
            scores.append(score.double())
            shares.append((gradients * (self.image - self.baseline)).sum(1).flatten(1).double() @ self.parts)
        return torch.cat(scores), torch.cat(shares)

    def at(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The same, from memory where a node was seen before."""
        new = torch.tensor([node for node in nodes.tolist() if node not in self.seen], dtype=torch.float64)
        if len(new):
            scores, shares = self.evaluate(new)
            self.seen.update(zip(new.tolist(), zip(scores.tolist(), shares, strict=True), strict=True))
        found = [self.seen[node] for node in nodes.tolist()]
        return torch.tensor([score for score, _ in found], dtype=torch.float64), torch.stack([row for _, row in found])

    def error(self, shares: Tensor) -> float:
        """The relative error of the worst group."""
        return ((shares - self.reference) @ self.members).abs().max().item() / self.scale


def fixed(rule: str, counts: Sequence[int], case: Case) -> Curve:
    """A named rule with each number of steps; both scores at the ends cost a third each."""
    curve = []
    for count in counts:
        chosen = quadrature(rule, count)
        curve.append((count + 2 / 3, case.error(chosen.weights @ case.at(chosen.nodes)[1])))
    return curve


def probed(intervals: int, power: float, case: Case) -> Curve:
    """A path with steps per interval in proportion to a power of the probed |Δf|, at least one each."""
    ends = torch.linspace(0, 1, intervals + 1, dtype=torch.float64)
    scores, _ = case.at(ends)
    part = scores.diff().abs() ** power
    curve = []
    for budget in BUDGETS:
        if budget < intervals:
            continue
        wanted = part / part.sum() * (budget - intervals)
        steps = wanted.floor().long()
        steps[(wanted - steps).argsort(descending=True)[: budget - intervals - int(steps.sum())]] += 1
        nodes, weights = [], []
        for start, count in zip(ends[:-1].tolist(), (steps + 1).tolist(), strict=True):
            rule = quadrature("midpoint", count)
            nodes.append(start + rule.nodes / intervals)
            weights.append(rule.weights / intervals)
        shares = torch.cat(weights) @ case.at(torch.cat(nodes))[1]
        curve.append((budget + len(ends) / 3, case.error(shares)))
    return curve


def bisected(kind: str, lean: bool, case: Case) -> Curve:
    """Bisection round by round, up to the largest budget; every gradient is kept."""
    nodes = torch.linspace(0, 1, START + 1, dtype=torch.float64)
    curve: Curve = []
    while True:
        scores, shares = case.at(nodes)
        width = nodes.diff()
        change = width[:, None] * shares.diff(dim=0)
        total = change.sum(1)
        missed = scores.diff() - width * (shares[:-1] + shares[1:]).sum(1) / 2
        spread = torch.maximum(total.square(), change.square().sum(1)).clamp_min(1e-30)
        towards = (missed * total / spread).clamp(-0.5, 0.5) if lean else torch.zeros_like(width)
        estimate = (width * (0.5 - towards)) @ shares[:-1] + (width * (0.5 + towards)) @ shares[1:]
        curve.append((float(len(nodes)), case.error(estimate)))
        room = BUDGETS[-1] - len(nodes)
        half_change = (change @ case.members).abs().amax(1) / 2
        error = {"residual": missed.abs(), "change": half_change, "both": missed.abs() + half_change}[kind]
        error = torch.where(width > 2 * torch.finfo(torch.float32).eps, error, 0.0)
        if room == 0 or not error.any():
            return curve
        order = error.argsort(descending=True, stable=True)
        held = error[order].square().cumsum(0)
        chosen = order[: min(int((held < MARKED * held[-1]).sum()) + 1, room)]
        nodes = torch.cat([nodes, (nodes[chosen] + nodes[chosen + 1]) / 2]).sort().values


WAYS: dict[str, Callable[[Case], Curve]] = {
    "midpoint": lambda case: fixed("midpoint", BUDGETS, case),
    "trapezoid": lambda case: fixed("trapezoid", BUDGETS, case),
    "gauss_legendre": lambda case: fixed("gauss_legendre", BUDGETS, case),
    "tripling": lambda case: fixed("midpoint", (5, 15, 45, 135), case),
    "nuig_4": lambda case: probed(4, 1.0, case),
    "nuig_4_root": lambda case: probed(4, 0.5, case),
    "nuig_8_root": lambda case: probed(8, 0.5, case),
    "residual": lambda case: bisected("residual", False, case),
    "change": lambda case: bisected("change", False, case),
    "both": lambda case: bisected("both", False, case),
    "refine": lambda case: bisected("both", True, case),
}


def needed(curves: Sequence[Curve], percentile: float) -> list[int | None]:
    """The cost from which that percentile of the cases stays below each of ERRORS; None if not by the last."""
    costs = np.unique(np.geomspace(BUDGETS[0], BUDGETS[-1], 60).round()).astype(int)
    spent = [[[error for cost, error in curve if cost < limit + 1] for limit in costs] for curve in curves]
    reached = np.array([[errors[-1] if errors else 1e9 for errors in row] for row in spent])
    errors = np.percentile(reached, percentile, axis=0)
    answers: list[int | None] = []
    for wanted in ERRORS:
        above = np.flatnonzero(errors > wanted)
        first = above[-1] + 1 if len(above) else 0
        answers.append(int(costs[first]) if first < len(costs) else None)
    return answers


def stopped(cases: Sequence[Case], tolerance: float) -> dict[str, Any]:
    """The cost of the served refinement with a tolerance, and whether it kept the tolerance."""
    costs, errors = [], []
    for case in cases:
        (refined,) = integrate_adaptive(
            case.network,
            case.image[None],
            case.baseline[None],
            case.target,
            [case.masks],
            torch.tensor([tolerance]),
            chunk=CHUNK,
            most=BUDGETS[-1],
        )
        if refined.converged:
            costs.append(refined.integral.evaluations)
            errors.append(case.error(refined.integral.attribution.sum(0).flatten().double() @ case.parts))
    return {
        "converged": len(costs),
        "evaluations": float(np.median(costs)) if costs else None,
        "within": sum(error <= tolerance for error in errors),
        "worst_over_tolerance": round(max(errors) / tolerance, 2) if errors else None,
    }


def cases(name: str, count: int) -> dict[str, list[Case]]:
    """The first held-out scenes for a served model, by baseline; the target is the predicted class."""
    archives = select(sorted(Path("archive_specs").glob("*.yaml")), environ={})
    archive = next(archive for archive in archives if archive.model.name == name)
    spec = archive.model
    assert isinstance(spec, ClassifierSpec)
    preprocess = Preprocess(**spec.preprocess.model_dump())
    network = fold(of_sources(archive).network)
    network = specialise(network, torch.zeros(1, 3, *preprocess.size))
    return {which: [one_case(network, preprocess, index, which) for index in range(count)] for which in BASELINES}


def one_case(network: nn.Module, preprocess: Preprocess, index: int, which: str) -> Case:
    """One held-out scene with its objects and a 4×4 grid as groups."""
    drawn = scene(HELD_OUT_SEED, index, SceneSettings())
    image, _ = apply(Image.fromarray(drawn.image), preprocess)
    cell = torch.arange(image.shape[-1]) * 4 // image.shape[-1]
    grid = (4 * cell[:, None] + cell) == torch.arange(16).view(-1, 1, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    baseline = torch.zeros_like(image) if which == "zero" else (-mean / std).expand_as(image).clone()
    with torch.no_grad():
        target = network(image[None]).argmax(1)
    return Case(network, image, baseline, target, torch.cat([torch.from_numpy(drawn.masks), grid]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lanet", "bit"])
    parser.add_argument("--scenes", nargs="+", type=int, default=[20], help="how many, for each model or for all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    counts = options.scenes * len(options.models) if len(options.scenes) == 1 else options.scenes
    results: dict[str, Any] = {"machine": machine(), "errors": ERRORS, "tolerances": TOLERANCES, "models": []}
    for name, count in zip(options.models, counts, strict=True):
        for which, these in cases(name, count).items():
            curves = {way: [run(case) for case in these] for way, run in WAYS.items()}
            result = {
                "model": name,
                "baseline": which,
                "scenes": count,
                "graded_references": sum(case.graded for case in these),
                "median_residual_of_2000_midpoints": float(np.median([case.uniform_residual for case in these])),
                "gradients_needed": {
                    way: {"median": needed(found, 50), "p90": needed(found, 90)} for way, found in curves.items()
                },
                "stopped": {str(tolerance): stopped(these, tolerance) for tolerance in TOLERANCES},
            }
            results["models"].append(result)
            print(json.dumps(result), flush=True)
            if options.out:
                options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
