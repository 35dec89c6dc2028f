"""Integrated and directional gradients from several baselines: what equals the baseline gets no attribution."""

from __future__ import annotations

import torch

from evaluation.cases import Case
from evaluation.methods import ours
from evaluation.pointing import hit, mass
from evaluation.settings import Settings
from evaluation.study import Row
from evaluation.subject import Subject
from imagexplain.attribution.baselines import blurred, image_mean


def by_baseline(subject: Subject, case: Case, settings: Settings) -> dict[Row, float]:
    """Hit and mass of our scores from each baseline, and how far the deciding object is from it.

    The rows are (partition and method, baseline, metric); ``distance`` is the root mean square of Δ over the deciding
    object. ``Δ²`` is the control that never asks the model: how far each pixel is from the baseline. What it finds
    already is no merit of the gradients.
    """
    starts = {name: subject.start(name)[None] for name in ("zero", "black", "white")}
    starts["image mean"] = image_mean(case.image)[None]
    starts["blurred"] = blurred(case.image, settings.blur)[None]
    starts["noise"] = subject.noise(settings.draws, seed=case.index)
    found: dict[Row, float] = {}
    for name, several in starts.items():
        paths = subject.explain(case.image.expand_as(several), several, case.label)
        attribution = torch.stack([path.attribution for path in paths])
        difference = torch.stack([path.difference for path in paths])
        pixels = attribution.mean(0).double().sum(0)
        squares = difference.double().square().sum(1).mean(0)
        found["pixels", name, "mass"] = mass(pixels.flatten(), case.deciding.flatten())
        found["pixels, Δ²", name, "mass"] = mass(squares.flatten(), case.deciding.flatten())
        found["pixels", name, "distance"] = difference[..., case.deciding].square().mean().sqrt().item()
        for kind, groups in case.partitions.items():
            tables = ours(attribution, difference, groups)
            shown = {"ig": tables["ig"], "directional": tables["directional"], "Δ²": groups.sums(squares)}
            for method, scores in shown.items():
                found[f"{kind}, {method}", name, "hit"] = hit(scores, groups.inside)
                if kind == "objects" and groups.objects.sum() > 1:
                    found[f"{kind}, {method}", name, "hit among objects"] = hit(scores, groups.inside, groups.objects)
    return found
