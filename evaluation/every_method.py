"""Scores the maps of every method on one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.cases import Case
from evaluation.cost import counted
from evaluation.curves import deletion, insertion
from evaluation.faithfulness import infidelity, removals, sensitivity
from evaluation.game import Game
from evaluation.line_up import Entry, maps_of
from evaluation.localisation import overlap
from evaluation.pointing import hit, mass
from evaluation.randomisation import METRICS, agreement
from evaluation.settings import Settings
from evaluation.subject import Subject
from imagexplain.attribution.postprocess import CHANNELS
from imagexplain.errors import UnsupportedModelError

Row = tuple[str, str]
"""Method, metric."""

DIRECTIONS: Mapping[str, str] = {
    "IoU": "higher",
    "box IoU": "higher",
    "hit": "higher",
    "mass": "higher",
    "insertion": "higher",
    "deletion": "lower",
    "infidelity": "lower",
    "sensitivity": "lower",
    **dict.fromkeys(METRICS.values(), "near 0"),
    "seconds": "lower",
    "forward": "lower",
    "backward": "lower",
}


@dataclass(frozen=True)
class Outcome:
    """What one case says.

    Attributes:
        values: of each method and metric.
        refused: methods that found no meaning for this case's image, with what they said.
    """

    values: Mapping[Row, float]
    refused: Mapping[str, str]


def scores_of_case(
    subject: Subject,
    redrawn: Subject | None,
    entries: Sequence[Entry],
    case: Case,
    references: Tensor,
    settings: Settings,
) -> Outcome:
    """Every metric but max-sensitivity, of every entry on one case.

    Args:
        subject: the model.
        redrawn: the same with weights drawn anew, or None to leave that check out.
        entries: that have a meaning for the model.
        case: that the model classifies rightly.
        references: (R, 3, H, W) for expected gradients.
        settings: of the metrics.
    """
    superpixels = case.partitions["superpixels"]
    game = Game(subject.network, case.image, subject.start(), superpixels.segments, case.label)
    taken = removals(len(superpixels), settings.removals, case.generator(3))
    values: dict[Row, float] = {}
    refused: dict[str, str] = {}
    for entry in entries:
        try:
            with counted(subject.network) as cost:
                maps = maps_of(entry, subject, case.image.unsqueeze(0), case, references)
        except UnsupportedModelError as error:
            refused[entry.name] = str(error)
            continue
        found = _of_map(entry, maps, case, game, taken)
        found |= {"seconds": cost.seconds, "forward": cost.forward, "backward": cost.backward}
        if redrawn is not None:
            found |= _against(entry, maps, redrawn, case, references)
        values |= {(entry.name, metric): value for metric, value in found.items()}
    return Outcome(values, refused)


def sensitivity_of(entry: Entry, subject: Subject, case: Case, references: Tensor, settings: Settings) -> Outcome:
    """Max-sensitivity of the scores of superpixels, which stay where they are."""
    try:
        change = sensitivity(
            lambda images: group_scores(entry, maps_of(entry, subject, images, case, references), case),
            case.image,
            settings.radius,
            settings.noisy,
            case.index,
        )
    except UnsupportedModelError:  # the case's other metrics say so
        return Outcome({}, {})
    return Outcome({(entry.name, "sensitivity"): change}, {})


def group_scores(entry: Entry, maps: Tensor, case: Case) -> Tensor:
    """(B, G) float64 what maps (B, C, H, W) give each superpixel: its sum, or its own score where it has one."""
    superpixels = case.partitions["superpixels"]
    sums = torch.stack([superpixels.sums(pixels) for pixels in one_channel(entry, maps)])
    return sums / superpixels.area if entry.by_group else sums


def one_channel(entry: Entry, maps: Tensor) -> Tensor:
    """(B, H, W) float64 of maps (B, C, H, W), signed unless the method says magnitudes."""
    return CHANNELS[entry.channels](maps.double())[:, 0]


def _of_map(entry: Entry, maps: Tensor, case: Case, game: Game, taken: Tensor) -> dict[str, float]:
    pixels, deciding = one_channel(entry, maps).flatten(), case.deciding.flatten()
    (scores,) = group_scores(entry, maps, case)
    area = case.partitions["superpixels"].area
    by_mask, by_box = overlap(maps, case.deciding, entry.channels)
    return {
        "IoU": by_mask,
        "box IoU": by_box,
        "hit": hit(pixels, deciding.double()),
        "mass": mass(pixels, deciding),
        "insertion": insertion(game, scores, area).probability,
        "deletion": deletion(game, scores, area).probability,
        "infidelity": infidelity(game, scores, taken, scaled=True),
    }


def _against(entry: Entry, maps: Tensor, redrawn: Subject, case: Case, references: Tensor) -> Mapping[str, float]:
    """How far the map agrees with the redrawn network's of the same class, if the method has a meaning for that."""
    try:
        others = maps_of(entry, redrawn, case.image.unsqueeze(0), case, references, seed=1)
    except UnsupportedModelError:
        return {}
    return agreement(maps[0], others[0])
