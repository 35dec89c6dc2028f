"""Every way to make a map that is scored: all methods of the library, some combinations, and two controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.cases import Case
from evaluation.controls import edges, random
from evaluation.evaluated_model import EvaluatedModel
from imagexplain.attribution.config import AttributionConfig, Smoothing
from imagexplain.attribution.registry import METHODS
from imagexplain.attribution.runner import AttributionInputs, layer_name, refusals, run

CONTROLS = ("edges", "random")
"""Maps that never ask the model."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Paths take 50 points each, as those do whose default that is; XRAI takes two paths.
    "blur_ig": {"steps": 50},
    "expected_gradients": {"samples": 50},
    "guided_ig": {"steps": 50},
    "xrai": {"steps": 25},
    "rise": {"samples": 1000},
    "ss_cam": {"samples": 2},
}
"""Options that are not a method's own, so that all methods can be scored in minutes."""

COMBINED = (("blur_ig", "grad_cam"), ("integrated_gradients", "grad_cam"))

SMOOTHED: Mapping[str, tuple[Mapping[str, Any], Smoothing]] = {
    "integrated_gradients": ({"steps": 10}, Smoothing(samples=8)),
}


@dataclass(frozen=True)
class Entry:
    """One way to make a map.

    Attributes:
        name: Name in tables.
        plan: Plan of the methods, None for a control.
    """

    name: str
    plan: AttributionConfig | None = None

    @property
    def channels(self) -> str:
        """The reduction of the map's channels, a key of :data:`imagexplain.attribution.postprocess.CHANNELS`."""
        alone = self.plan.methods if self.plan else ()
        return "abs" if len(alone) == 1 and METHODS[alone[0]].sensitivity else "sum"

    @property
    def centred(self) -> bool:
        """Tell whether only the difference from the map's mean tells, as for RISE (the registry's ``centred``)."""
        alone = self.plan.methods if self.plan else ()
        return len(alone) == 1 and METHODS[alone[0]].centred

    @property
    def by_group(self) -> bool:
        """Tell whether each pixel has the score of its whole group, rather than its own share of it."""
        return self.plan is not None and self.plan.of_groups


def entries_of(
    methods: Collection[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] = OPTIONS,
    smoothed: Mapping[str, tuple[Mapping[str, Any], Smoothing]] = SMOOTHED,
) -> list[Entry]:
    """The controls, and the entries made of these methods alone, by default of all.

    Args:
        methods: Names of the methods.
        options: Options, by method, that are not its own.
        smoothed: Options and noise of the entries that average over noise, by method.

    Raises:
        ValueError: a method that the library does not have.
    """
    methods = METHODS if methods is None else methods
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"methods: wanted some of {', '.join(METHODS)}, got {name!r}")
    plans = [_plan(options, name) for name in METHODS] + [_plan(options, *pair) for pair in COMBINED]
    entries = [Entry(plan.name, plan) for plan in plans]
    for name, (own, smoothing) in smoothed.items():
        plan = AttributionConfig((name,), tuple(own.items()), smoothing=smoothing)
        entries.append(Entry(f"{name}, {smoothing.samples} noisy copies", plan))
    wanted = [entry for entry in entries if entry.plan and set(entry.plan.methods) <= set(methods)]
    return [*wanted, *map(Entry, CONTROLS)]


def _plan(options: Mapping[str, Mapping[str, Any]], *methods: str) -> AttributionConfig:
    return AttributionConfig(methods, tuple(pair for method in methods for pair in options.get(method, {}).items()))


def supported(entries: Sequence[Entry], network: nn.Module, images: Tensor) -> tuple[list[Entry], dict[str, str]]:
    """The entries that a network supports, with the layers that they look at, and the others' reasons.

    Args:
        entries: Entries to be scored.
        network: Network from (N, C, H, W) to scores (N, classes).
        images: (B, C, H, W), of which the first is tried.
    """
    methods = dict.fromkeys(method for entry in entries if entry.plan for method in entry.plan.methods)
    reasons = refusals(network, images, methods)
    kept, refused = [], {}
    for entry in entries:
        plan = entry.plan
        said = [reasons[method] for method in (plan.methods if plan else ()) if method in reasons]
        if said:
            refused[entry.name] = said[0]
        elif plan:
            kept.append(replace(entry, plan=replace(plan, layer=layer_name(plan, network, images))))
        else:
            kept.append(entry)
    return kept, refused


def maps_of(
    entry: Entry, model: EvaluatedModel, images: Tensor, case: Case, references: Tensor, seed: int = 0
) -> Tensor:
    """The maps (B, C, H, W) or (B, 1, H, W) of images that are a case's, or nearly.

    Args:
        entry: Entry that the model supports.
        model: Model whose own baseline is the start of paths and the look of absent pixels.
        images: (B, 3, H, W).
        case: Case whose class is explained, by whose superpixels.
        references: (R, 3, H, W) images that expected gradients compare with.
        seed: Seed of the control that is chance.

    Raises:
        UnsupportedModelError: a method that is not supported for one of the images.
    """
    photos = model.photos(images)
    if entry.plan is None:
        return torch.stack([_control(entry.name, photo, case.generator(seed)) for photo in photos]).unsqueeze(1)
    starts = references.unsqueeze(1) if "references" in entry.plan.takes else model.start()[None, None]
    material = AttributionInputs(
        baselines=None if entry.plan.own_baselines else starts.expand(-1, len(images), -1, -1, -1),
        groups=case.partitions["superpixels"].segments.expand(len(images), -1, -1),
        pictures=(255 * photos).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1),
    )
    targets = torch.full((len(images),), case.label)
    return run(entry.plan, model.network, images, targets, material, chunk=model.chunk)


def _control(name: str, photo: Tensor, generator: torch.Generator) -> Tensor:
    return edges(photo) if name == "edges" else random((photo.shape[1], photo.shape[2]), generator)
