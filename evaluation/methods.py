"""The methods that are scored, each as one score for every group of a partition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from evaluation.controls import edges, gradients, random
from evaluation.evaluated_model import EvaluatedModel
from evaluation.partition import REST, Partition
from imagexplain.attribution.groups.directional import group_scores
from imagexplain.attribution.groups.families import family
from imagexplain.attribution.paths.path_integral import PathIntegral

OURS = ("ig", "|ig|", "directional", "dividend", "value", "value with pixels")
CONTROLS = (
    "random",
    "area",
    "edges",
    "edges per pixel",
    "gradient",
    "gradient per pixel",
    "input × gradient",
)
UNITS_OF_THE_SCORE = ("ig", "leave-one-out")
"""Methods whose scores predict differences of the model's score as they are, without a factor."""


def ours(attribution: Tensor, difference: Tensor, groups: Partition) -> Mapping[str, Tensor]:
    """(G,) float64 scores by the family of a partition's objects, the rest and the whole image.

    Of disjoint groups none contains another, so `value` is `dividend` here, and both order the groups as
    |directional| does; with single pixels in the family they differ.

    Args:
        attribution: (C, H, W) integrated gradients, or (D, C, H, W) for D draws of the baseline.
        difference: Δ, of the same shape.
        groups: Groups over H × W.
    """
    names = [name for name in groups.names if name != REST]
    segments = groups.masks[groups.objects]
    table = group_scores(attribution, difference, family(segments, names))
    with_pixels = group_scores(attribution, difference, family(segments, names, pixels=True))
    rows = slice(len(groups))  # segments and rest in the partition's order; the whole image comes last
    return {
        "ig": table.attribution[rows],
        "|ig|": table.attribution[rows].abs(),
        "directional": table.directional[rows],
        "dividend": table.dividend[rows],
        "value": table.value[rows],
        "value with pixels": with_pixels.value[rows],
    }


def controls(maps: Mapping[str, Tensor], groups: Partition, generator: torch.Generator) -> Mapping[str, Tensor]:
    """(G,) float64 scores by the cheap maps (H, W): their sums over each group, or means where it says so."""
    sums = {name: groups.sums(maps[name]) for name in ("edges", "gradient", "input × gradient")}
    return {
        "random": torch.rand(len(groups), generator=generator, dtype=torch.float64),
        "area": groups.area.double(),
        "edges": sums["edges"],
        "edges per pixel": sums["edges"] / groups.area,
        "gradient": sums["gradient"],
        "gradient per pixel": sums["gradient"] / groups.area,
        "input × gradient": sums["input × gradient"],
    }


def pixel_maps(
    model: EvaluatedModel,
    image: Tensor,
    photo: Tensor,
    integral: PathIntegral,
    target: int,
    generator: torch.Generator,
) -> Mapping[str, Tensor]:
    """(H, W) float64 maps of the methods that have one: ours, summed over channels, and the controls."""
    size = (image.shape[1], image.shape[2])
    ig = integral.attribution.double().sum(0)
    local = gradients(model.network, image.unsqueeze(0), target)
    return {
        "ig": ig,
        "|ig|": ig.abs(),
        "random": random(size, generator),
        "area": torch.ones(size, dtype=torch.float64),
        "edges": edges(photo),
        **{name: values[0] for name, values in local.items()},
    }
