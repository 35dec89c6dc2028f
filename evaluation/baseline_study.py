"""The study of baselines: integrated and directional gradients from several; what equals one gets no attribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evaluation import metrics
from evaluation.harness import Part, Result, Row, Study
from evaluation.methods import ours
from evaluation.pointing import pointing_game, relevance_mass_accuracy
from imagexplain.attribution.baselines import blurred, image_mean

DISTANCE = "distance"
"""Name in a metric's place: the deciding object's distance from the baseline, which is neither good nor bad."""


@dataclass(frozen=True, eq=False)
class BaselineStudy(Study):
    """Pointing game and relevance mass of our scores from each baseline, and the deciding object's distance from it.

    The rows are (partition and method, baseline, metric); the distance is the root mean square of Δ over the deciding
    object. ``Δ²`` is the control that never asks the model: how far each pixel is from the baseline. What it finds
    already is no merit of the gradients.
    """

    def score(self, part: Part) -> Result:
        """Score one case from all baselines."""
        case, model = self.cases[part.case], self.model
        starts = {name: model.start(name)[None] for name in ("zero", "black", "white")}
        starts["image mean"] = image_mean(case.image)[None]
        starts["blurred"] = blurred(case.image, self.settings.blur)[None]
        starts["noise"] = model.noise(self.settings.draws, seed=case.index)
        mass = metrics.RELEVANCE_MASS.name
        found: dict[Row, float] = {}
        for name, several in starts.items():
            paths = model.explain(case.image.expand_as(several), several, case.label)
            attribution = torch.stack([path.attribution for path in paths])
            difference = torch.stack([path.difference for path in paths])
            pixels = attribution.mean(0).double().sum(0)
            squares = difference.double().square().sum(1).mean(0)
            deciding = case.deciding.flatten()
            found[Row("pixels", name, mass)] = relevance_mass_accuracy(pixels.flatten(), deciding)
            found[Row("pixels, Δ²", name, mass)] = relevance_mass_accuracy(squares.flatten(), deciding)
            found[Row("pixels", name, DISTANCE)] = difference[..., case.deciding].square().mean().sqrt().item()
            for kind, groups in case.partitions.items():
                tables = ours(attribution, difference, groups)
                shown = {"ig": tables["ig"], "directional": tables["directional"], "Δ²": groups.sums(squares)}
                for method, scores in shown.items():
                    scored, inside = f"{kind}, {method}", groups.inside
                    found[Row(scored, name, metrics.POINTING_GAME.name)] = pointing_game(scores, inside)
                    if kind == "objects" and groups.objects.sum() > 1:
                        among = Row(scored, name, metrics.POINTING_GAME_AMONG_OBJECTS.name)
                        found[among] = pointing_game(scores, inside, groups.objects)
        return Result(found)
