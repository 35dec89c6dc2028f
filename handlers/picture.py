"""The picture of an explanation: a heat map, or coloured segments where groups were scored."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from handlers.attribution.plan import Plan
from handlers.explanation import Explanation, scores_of
from handlers.mapping import Map, sums_of
from handlers.sample import Sample
from handlers.wire.heatmap import overlay
from handlers.wire.segment_picture import Entry, coloured, shortened


def picture(sample: Sample, explanation: Explanation | Map) -> Image.Image:
    """An RGB image of the photo's size.

    Segments take the colour of their directional gradient, relative to the strongest of them; the legend names the
    strongest, with the part of all dividends that each of them has. Where there is only a map, it is what the map holds
    in a segment, for a pixel, and the part of all that it holds.
    """
    photo = sample.request.photo.image
    groups = sample.groups
    if groups is None or "segment" not in groups.family.kinds:
        return overlay(photo, as_drawn(explanation.attribution, sample.request.plan), sample.geometry)
    shown = torch.tensor([kind != "whole" for kind in groups.family.kinds])
    if isinstance(explanation, Explanation):
        scores = scores_of(explanation, groups)
        colours, dividend = scores.directional[shown], scores.dividend[shown]
    else:
        sums = sums_of(
            replace(explanation, attribution=as_drawn(explanation.attribution, sample.request.plan)), groups
        )[shown]
        colours = sums / groups.family.area[shown]
        dividend = sums.abs() / sums.abs().sum().clamp_min(1e-30)
    strengths = colours / colours.abs().max().clamp_min(1e-30)
    labels = [label for label, use in zip(groups.family.labels, shown.tolist(), strict=True) if use]
    order = strengths.abs().argsort(descending=True, stable=True).tolist()
    legend = [Entry(f"{shortened(labels[row])}  {dividend[row]:.1%}", strengths[row].item()) for row in order]
    return coloured(photo, groups.family.masks[shown], strengths, sample.geometry, legend)


def as_drawn(attribution: Tensor, plan: Plan) -> Tensor:
    """One image's map as it is drawn: that of RISE is a mean score, high everywhere, of which the differences tell."""
    return attribution - attribution.mean() if plan.methods == ("rise",) else attribution
