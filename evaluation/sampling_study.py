"""The study of sampling: our scores beside KernelShap's, by how each orders the groups and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from evaluation import metrics
from evaluation.coalition_game import CoalitionGame, leave_one_out
from evaluation.cost import measure_cost
from evaluation.harness import Part, Result, Row, Study
from evaluation.methods import ours
from evaluation.ranks import spearman
from evaluation.shapley import by_orders, exact, kernel_shap
from imagexplain.attribution.paths.path_integral import points_on

GRADIENT = 3
"""Forward passes that a path point costs: its own, and a backward pass of twice the work."""


@dataclass(frozen=True, eq=False)
class SamplingStudy(Study):
    """KernelShap at each number of samples, ours, and leave-one-out, on one partition.

    The Shapley values to compare with are exact for objects, and from many orders of the superpixels, which share no
    random number with KernelShap. Evaluations are forward passes, a gradient counted as three.

    Attributes:
        partition: Name of the cases' partition.
    """

    partition: str

    def score(self, part: Part) -> Result:
        """Score one case."""
        case, model = self.cases[part.case], self.model
        groups, start = case.partitions[self.partition], model.start()

        def game() -> CoalitionGame:
            return CoalitionGame(model.network, case.image, start, groups.segments, case.label)

        first = game()
        effects = leave_one_out(first)
        objects = self.partition == "objects"
        shapley = exact(first) if objects else by_orders(first, self.settings.orders, case.generator(7))

        def estimates() -> Iterator[tuple[str, Tensor, int]]:
            for samples in self.settings.samples:
                with measure_cost(model.network) as cost:
                    guess = kernel_shap(
                        model.network, case.image, start, groups.segments, case.label, samples, seed=case.index
                    )
                yield f"KernelShap {samples}", guess, cost.forward
            (integral,) = model.explain(case.image[None], start[None], case.label)
            for method, scores in ours(integral.attribution, integral.difference, groups).items():
                yield method, scores, GRADIENT * points_on(model.rule)
            yield "leave-one-out", effects, len(groups) + 1
            if not objects:  # how well the reference knows itself
                other = game()
                second = by_orders(other, self.settings.orders, case.generator(8))
                yield "Shapley, other orders", second, other.evaluations

        found: dict[Row, float] = {}
        for method, scores, evaluations in estimates():
            values = {
                metrics.EVALUATIONS: evaluations,
                metrics.RANK_CORRELATION: 1.0 if method == "leave-one-out" else spearman(scores, effects),
                metrics.SHAPLEY_RANK_CORRELATION: spearman(scores, shapley),
            }
            found |= {Row(self.partition, method, metric.name): value for metric, value in values.items()}
        return Result(found)
