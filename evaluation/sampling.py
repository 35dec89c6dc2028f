"""Our scores beside KernelShap's: how well each orders the groups, and how often it asks the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from evaluation.cases import Case
from evaluation.game import Game, leave_one_out
from evaluation.methods import ours
from evaluation.ranks import spearman
from evaluation.settings import Settings
from evaluation.shapley import by_orders, exact, kernel_shap
from evaluation.subject import Subject
from imagexplain.attribution.paths.path_integral import points_on


@dataclass(frozen=True)
class Estimate:
    """How well one method orders the groups of one case, and what it cost.

    Attributes:
        evaluations: forward passes, a gradient counted as three.
        effects: Spearman correlation with leave-one-group-out effects.
        shapley: the same with Shapley values.
    """

    evaluations: int
    effects: float
    shapley: float


GRADIENT = 3  # forward passes that a path point costs: its own, and a backward pass of twice the work


def against_sampling(subject: Subject, case: Case, kind: str, settings: Settings) -> dict[str, Estimate]:
    """KernelShap at each number of samples, ours, and leave-one-out, on one partition of one case.

    The Shapley values to compare with are exact for objects, and from many orders of the superpixels, which share no
    random number with KernelShap.
    """
    groups, start = case.partitions[kind], subject.start()
    game = Game(subject.network, case.image, start, groups.segments, case.label)
    effects = leave_one_out(game)
    shapley = exact(game) if kind == "objects" else by_orders(game, settings.orders, case.generator(7))
    found: dict[str, Estimate] = {}
    calls = 0

    def counted(images: Tensor) -> Tensor:
        nonlocal calls
        calls += len(images)
        return subject.network(images)

    for samples in settings.samples:
        calls = 0
        guess = kernel_shap(counted, case.image, start, groups.segments, case.label, samples, seed=case.index)
        found[f"KernelShap {samples}"] = Estimate(calls, spearman(guess, effects), spearman(guess, shapley))
    (integral,) = subject.explain(case.image[None], start[None], case.label)
    for method, scores in ours(integral.attribution, integral.difference, groups).items():
        cost = GRADIENT * points_on(subject.rule)
        found[method] = Estimate(cost, spearman(scores, effects), spearman(scores, shapley))
    found["leave-one-out"] = Estimate(len(groups) + 1, 1.0, spearman(effects, shapley))
    if kind != "objects":  # how well the reference knows itself
        other = Game(subject.network, case.image, start, groups.segments, case.label)
        second = by_orders(other, settings.orders, case.generator(8))
        found["Shapley, other orders"] = Estimate(
            other.evaluations, spearman(second, effects), spearman(second, shapley)
        )
    return found
