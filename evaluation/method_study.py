"""The study of maps: every metric of every method of the library on each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import imagexplain.attribution as library
from evaluation import metrics
from evaluation.cases import Case
from evaluation.coalition_game import CoalitionGame
from evaluation.cost import measure_cost
from evaluation.curves import deletion, insertion
from evaluation.entries import Entry, maps_of
from evaluation.evaluated_model import EvaluatedModel
from evaluation.faithfulness import infidelity, removals, sensitivity
from evaluation.harness import Part, Result, Row, Study
from evaluation.localisation import overlap
from evaluation.pointing import pointing_game, relevance_mass_accuracy
from evaluation.randomization import agreement, randomize_parameters
from imagexplain.attribution.postprocess import CHANNELS
from imagexplain.errors import UnsupportedModelError

SCORED = "pixels"
"""Name of what maps score, pixels; where a metric asks for scores of superpixels, the map's are summed."""


@dataclass(frozen=True, eq=False)
class MethodStudy(Study):
    """Maps of a model.

    Attributes:
        entries: Ways to make a map that the model supports.
        references: Images (R, 3, H, W) for expected gradients.
        randomized: Number of cases, from the first, that are explained with randomized parameters too, others for each.
        noisy: Number of cases, from the first, on which max-sensitivity is measured.
    """

    entries: Sequence[Entry]
    references: Tensor
    randomized: int
    noisy: int

    @property
    def parts(self) -> list[Part]:
        """Each case with all entries, then max-sensitivity for each entry but chance, which has no input."""
        noisy = [(number, entry.name) for number in range(len(self.cases[: self.noisy])) for entry in self.entries]
        return super().parts + [Part(*part) for part in noisy if part[1] != "random"]

    def prepare(self) -> None:
        """Import the methods, which is no part of the time that they take."""
        for method in {method for entry in self.entries if entry.plan for method in entry.plan.methods}:
            getattr(library, method)

    def score(self, part: Part) -> Result:
        """Score all entries on a case, or one entry's max-sensitivity."""
        case = self.cases[part.case]
        if part.alone is not None:
            (entry,) = (entry for entry in self.entries if entry.name == part.alone)
            return self._sensitivity(entry, case)
        if part.case >= self.randomized:
            return self._scores(case, None)
        network = randomize_parameters(self.model.network, case.index, self.references)
        return self._scores(case, replace(self.model, network=network))

    def _scores(self, case: Case, randomized: EvaluatedModel | None) -> Result:
        """Every metric but max-sensitivity, and without a randomized model but parameter randomization."""
        superpixels = case.partitions["superpixels"]
        game = CoalitionGame(self.model.network, case.image, self.model.start(), superpixels.segments, case.label)
        taken = removals(len(superpixels), self.settings.removals, case.generator(3))
        values: dict[Row, float] = {}
        refused: dict[str, str] = {}
        for entry in self.entries:
            try:
                maps, cost = self.measured(entry, case)
            except UnsupportedModelError as error:
                refused[entry.name] = str(error)
                continue
            found = _of_map(entry, maps, case, game, taken) | cost
            if randomized is not None:
                found |= self._against(entry, maps, randomized, case)
            values |= {Row(SCORED, entry.name, metric): value for metric, value in found.items()}
        return Result(values, refused)

    def measured(self, entry: Entry, case: Case) -> tuple[Tensor, dict[str, float]]:
        """The map (1, C, H, W) of a case, and its cost by the metrics' names; raises UnsupportedModelError."""
        with measure_cost(self.model.network) as cost:
            maps = maps_of(entry, self.model, case.image.unsqueeze(0), case, self.references)
        return maps, {
            metrics.CPU_TIME.name: cost.seconds,
            metrics.FORWARD.name: cost.forward,
            metrics.BACKWARD.name: cost.backward,
        }

    def _against(self, entry: Entry, maps: Tensor, randomized: EvaluatedModel, case: Case) -> Mapping[str, float]:
        """Agreement of the map with the randomized network's of the same class, if that one supports the method."""
        try:
            others = maps_of(entry, randomized, case.image.unsqueeze(0), case, self.references, seed=1)
        except UnsupportedModelError:
            return {}
        return agreement(maps[0], others[0])

    def _sensitivity(self, entry: Entry, case: Case) -> Result:
        """Max-sensitivity of the scores of superpixels, which stay where they are."""
        try:
            change = sensitivity(
                lambda images: group_scores(entry, maps_of(entry, self.model, images, case, self.references), case),
                case.image,
                self.settings.radius,
                self.settings.noisy,
                case.index,
            )
        except UnsupportedModelError:  # the case's other metrics say so
            return Result({})
        return Result({Row(SCORED, entry.name, metrics.MAX_SENSITIVITY.name): change})


def group_scores(entry: Entry, maps: Tensor, case: Case) -> Tensor:
    """(B, G) float64 what maps (B, C, H, W) give each superpixel: its sum, or its own score where it has one."""
    superpixels = case.partitions["superpixels"]
    sums = torch.stack([superpixels.sums(pixels) for pixels in one_channel(entry, maps)])
    return sums / superpixels.area if entry.by_group else sums


def one_channel(entry: Entry, maps: Tensor) -> Tensor:
    """(B, H, W) float64 of maps (B, C, H, W), signed unless the method says magnitudes."""
    values = CHANNELS[entry.channels](maps.double())[:, 0]
    return values - values.mean((1, 2), keepdim=True) if entry.centred else values


def _of_map(entry: Entry, maps: Tensor, case: Case, game: CoalitionGame, taken: Tensor) -> dict[str, float]:
    pixels, deciding = one_channel(entry, maps).flatten(), case.deciding.flatten()
    (scores,) = group_scores(entry, maps, case)
    area = case.partitions["superpixels"].area
    by_mask, by_box = overlap(maps, case.deciding, entry.channels)
    values = {
        metrics.IOU: by_mask,
        metrics.BOX_IOU: by_box,
        metrics.POINTING_GAME: pointing_game(pixels, deciding.double()),
        metrics.RELEVANCE_MASS: relevance_mass_accuracy(pixels, deciding),
        metrics.INSERTION: insertion(game, scores, area).probability,
        metrics.DELETION: deletion(game, scores, area).probability,
        metrics.NORMALIZED_INFIDELITY: infidelity(game, scores, taken, scaled=True),
    }
    return {metric.name: value for metric, value in values.items()}
