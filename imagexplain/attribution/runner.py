"""A choice of method with its options as a value, and carrying it out: what a server, a sheet or a study asks for.

Methods differ in what they want beside images and classes: a layer, a baseline, groups of pixels. A :class:`Plan` says
which method, :class:`Material` holds whatever there is, and :func:`carry_out` hands each method what it takes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import imagexplain.attribution as library
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.paths.path_integral import Forward

OPTIONS: Mapping[str, type] = {
    "cells": int,
    "discard": float,
    "fraction": float,
    "grad_step": float,
    "head_fusion": str,
    "keep": float,
    "least": int,
    "max_dist": float,
    "max_sigma": float,
    "rule": str,
    "samples": int,
    "score": str,
    "scores": str,
    "seed": int,
    "size": int,
    "sqrt": bool,
    "statistic": str,
    "std": float,
    "steps": int,
    "stride": int,
}
"""Every option of a method that is a plain value; one of the same name is of the same type in all methods."""

MATERIAL = ("layer", "baselines", "fill", "references", "groups", "segments", "pictures", "chunk")
"""What else methods take."""

COARSE = frozenset(
    {
        "ablation_cam",
        "attention_rollout",
        "bag_cam",
        "eigen_cam",
        "eigen_grad_cam",
        "full_grad",
        "grad_cam",
        "grad_cam_plusplus",
        "gradient_rollout",
        "hires_cam",
        "layer_cam",
        "score_cam",
        "xgrad_cam",
    }
)
"""Methods whose maps have one channel that is nowhere negative: what a fine map may be multiplied with."""

PARTICULAR = frozenset({"deep_lift", "guided_backprop"})
"""Methods that take any function of images but are of no use for some."""

QUICKER = {"ablation_cam": "grad_cam", "score_cam": "grad_cam"}
"""Methods that work where another does, which takes less time to try."""

FORWARD_SHARE = 1 / 3
"""What a forward pass costs beside a forward and a backward pass."""

SECONDS_PER_OPERATION = 1e-10
"""Of a large matrix product or decomposition in float64 on one slow core; half of it was measured."""

OPERATIONS_PER_MEMBER = 1000
"""What drawing one group of one coalition takes, in units of these."""

OPERATIONS_PER_SEGMENTATION = 1.5e10
"""What XRAI's segments of a picture take, in units of these; twice what was measured."""

OPERATIONS_PER_REGIONS_PIXEL = 8e4
"""What resizing a picture for them and growing regions from them takes for each of its pixels, likewise."""


@dataclass(frozen=True)
class Smoothing:
    """Noise over which a map is averaged; see :func:`imagexplain.attribution.methods.smoothgrad.smooth`."""

    samples: int = 25
    std: float = 0.15
    seed: int = 0
    statistic: str = "mean"


@dataclass(frozen=True)
class Plan:
    """How a map is made.

    Attributes:
        methods: one of :data:`imagexplain.attribution.METHODS`, or two whose maps are multiplied, the fine one first.
        options: of the methods, by name; a method gets those that it takes.
        layer: dotted name of the layer for methods that look at one, None for the model's default.
        smoothing: of each map over noise, if any.
        normalized: scale two maps and their product to 0..1; see
            :func:`imagexplain.attribution.methods.guided_grad_cam.combine`.
    """

    methods: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    layer: str | None = None
    smoothing: Smoothing | None = None
    normalized: bool = False

    @property
    def name(self) -> str:
        """The method, or both with a sign of multiplication."""
        return " × ".join(self.methods)

    @property
    def takes(self) -> frozenset[str]:
        """The options and material that the methods take."""
        return frozenset().union(*(parameters(method) for method in self.methods))

    @property
    def by_module(self) -> bool:
        """Whether a method looks into the model, for which a function of images will not do."""
        return any(looks_inside(method) for method in self.methods)

    def settings(self) -> dict[str, Any]:
        """The options by name, given or not, and the smoothing's."""
        usual = {name: value for method in self.methods for name, value in parameters(method).items()}
        given = dict(self.options)
        return {name: given.get(name, usual[name]) for name in sorted(usual) if name in OPTIONS}


@dataclass(frozen=True, eq=False)
class Material:
    """What there is for methods that want more than images and classes.

    Attributes:
        baselines: (D, B, C, H, W) where paths begin and what absence looks like; maps are averaged over the draws D.
        groups: (B, H, W) int64, the disjoint groups of each image.
        segments: for each image (S, H, W) bool, which may overlap.
        pictures: (B, H, W, 3) uint8, the images as the eye sees them.
    """

    baselines: Tensor | None = None
    groups: Tensor | None = None
    segments: Sequence[Tensor] | None = None
    pictures: Tensor | None = None

    def at(self, rows: Tensor) -> Material:
        """That of some images, or of copies of them, by their indices (n,)."""
        return Material(
            baselines=None if self.baselines is None else self.baselines[:, rows],
            groups=None if self.groups is None else self.groups[rows],
            segments=None if self.segments is None else [self.segments[row] for row in rows.tolist()],
            pictures=None if self.pictures is None else self.pictures[rows],
        )


@cache
def parameters(method: str) -> Mapping[str, Any]:
    """The named options and material of a method, each with its default; the one without a default has `...`."""
    signature = inspect.signature(getattr(library, method))
    return {
        name: ... if parameter.default is parameter.empty else parameter.default
        for name, parameter in signature.parameters.items()
        if name in OPTIONS or name in MATERIAL
    }


@cache
def looks_inside(method: str) -> bool:
    """Whether a method wants a module, of which it looks at layers, rather than any function of images."""
    return "Module" in str(inspect.signature(getattr(library, method)).parameters["model"].annotation)


def carry_out(plan: Plan, model: Forward, images: Tensor, targets: Tensor, material: Material, *, chunk: int) -> Tensor:
    """The maps of a batch.

    Args:
        plan: which.
        model: (N, C, H, W) to pre-softmax scores (N, classes); a module where the plan looks inside.
        images: (B, C, H, W) in model-input space, B at least 1.
        targets: (B,) int64 class indices.
        material: what there is.
        chunk: rows evaluated at once, at most.

    Returns:
        (B, C, H, W) or (B, 1, H, W), detached.

    Raises:
        ValueError: ``model: …`` where the method has no meaning for the model, ``layer: …`` where the model has no such
            layer, and whatever option or material does not fit, by name.
    """
    return product(plan, [_smoothed(method, plan, model, images, targets, material, chunk) for method in plan.methods])


def product(plan: Plan, maps: Sequence[Tensor]) -> Tensor:
    """The map of a plan from those of its methods, one or two: themselves, or multiplied as the plan says."""
    return maps[0] if len(maps) == 1 else library.combine(*maps, normalized=plan.normalized)


def _smoothed(
    method: str, plan: Plan, model: Forward, images: Tensor, targets: Tensor, material: Material, chunk: int
) -> Tensor:
    if looks_inside(method):
        network_of(method, model)
    if plan.smoothing is None:
        parts = torch.arange(len(images)).split(chunk)
        return torch.cat(
            [_maps(method, plan, model, images[rows], targets[rows], material.at(rows), chunk) for rows in parts]
        )
    smoothing = vars(plan.smoothing)

    def of_copies(index: int) -> Callable[..., Tensor]:
        def of(model: Forward, copies: Tensor, targets: Tensor) -> Tensor:
            own = material.at(torch.full((len(copies),), index))
            return _maps(method, plan, model, copies, targets, own, chunk)

        return of

    return torch.cat(
        [
            library.smooth(of_copies(b), model, images[b : b + 1], targets[b : b + 1], **smoothing, chunk=chunk)
            for b in range(len(images))
        ]
    )


def _maps(
    method: str, plan: Plan, model: Forward, images: Tensor, targets: Tensor, material: Material, chunk: int
) -> Tensor:
    """The maps of a batch by one method, averaged over the draws of the baseline."""
    takes, given = parameters(method), dict(plan.options)
    options = {name: given[name] for name in given if name in takes}
    offered = {
        "layer": plan.layer,
        "groups": material.groups,
        "segments": material.segments,
        "pictures": material.pictures,
        "chunk": chunk,
    }
    options |= {name: value for name, value in offered.items() if name in takes and value is not None}
    run = partial(getattr(library, method), model)
    if material.baselines is None:
        return run(images, targets, **options)
    if "references" in takes:
        each = zip(images.split(1), targets.split(1), material.baselines.unbind(1), strict=True)
        return torch.cat([run(image, target, references=own, **options) for image, target, own in each])
    names = [name for name in ("baselines", "fill") if name in takes]
    if not names:
        return run(images, targets, **options)
    return torch.stack([run(images, targets, **{names[0]: draw}, **options) for draw in material.baselines]).mean(0)


def evaluations(plan: Plan, size: tuple[int, int], *, draws: int = 1, groups: int = 0, channels: int = 0) -> int:
    """How many rows of a forward and a backward pass the map of one image costs, about; a forward alone counts less.

    Args:
        plan: which.
        size: (H, W) of the image.
        draws: of the baseline.
        groups: of pixels.
        channels: of the layer that a method takes one by one.
    """
    values = {"samples": 0, "steps": 0, "size": 1, "stride": 1} | plan.settings()
    windows = math.prod(-(-max(side - values["size"], 0) // max(values["stride"], 1)) + 1 for side in size)
    alone: Mapping[str, float] = {
        "score_cam": channels,
        "ablation_cam": channels,
        "occlusion": windows * draws,
        "feature_ablation": groups * draws,
        "kernel_shap": values["samples"] * draws,
        "rise": values["samples"] * draws,
    }
    both: Mapping[str, float] = {
        "smoothgrad": values["samples"],
        "expected_gradients": values["samples"],
        "integrated_gradients": (values["steps"] + 2) * draws,
        "guided_ig": values["steps"] * draws,
        "idgi": (values["steps"] + 1) * draws,
        "blur_ig": values["steps"],
        "xrai": 2 * (values["steps"] + 2),
        "deep_lift": 3 * draws,
    }
    rows = sum(both.get(method, 0) + FORWARD_SHARE * alone.get(method, 0) + 2 for method in plan.methods)
    return math.ceil(rows * (plan.smoothing.samples if plan.smoothing else 1))


def seconds_beside(plan: Plan, size: tuple[int, int], *, draws: int = 1, groups: int = 0) -> float:
    """How long the map of one image takes at most beside the model's evaluations, where that depends on its options.

    Args:
        plan: which.
        size: (H, W) of the image, of three channels.
        draws: of the baseline.
        groups: of pixels.
    """
    values = {"samples": 0, "steps": 0} | plan.settings()
    coalitions = min(values["samples"], 2**groups - 2) if groups else 0
    height, width = size
    operations: Mapping[str, float] = {
        # Coalitions are drawn; then half as many equations are made triangular, and the triangle is decomposed.
        "kernel_shap": draws * (OPERATIONS_PER_MEMBER * coalitions * groups + (coalitions + 20 * groups) * groups**2),
        # Two blurs a step, each a product with a matrix from either side in three channels.
        "blur_ig": values["steps"] * 2 * 2 * 3 * height * width * (height + width),
        # Six segmentations of a picture of fixed size, made from one of any size, and regions grown from hundreds.
        "xrai": OPERATIONS_PER_SEGMENTATION + OPERATIONS_PER_REGIONS_PIXEL * height * width,
    }
    each = sum(operations.get(method, 0.0) for method in plan.methods) * SECONDS_PER_OPERATION
    return each * (plan.smoothing.samples if plan.smoothing else 1)


def network_of(name: str, model: Forward) -> nn.Module:
    """The model as the network that a method looks into; raises ValueError for any other function."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {name} wants a network to look into, got a score at one place of it")
    return model


def layer_name(plan: Plan, model: nn.Module, images: Tensor) -> str | None:
    """The dotted name of the layer that the plan's methods look at, None where they look at none; raises like them."""
    if "layer" not in plan.takes:
        return None
    layer = chosen_layer(model, images, plan.layer)
    return next(name for name, module in model.named_modules() if module is layer)


@isolated
@torch.no_grad()
def channels_of(model: nn.Module, images: Tensor, layer: str) -> int:
    """The number of channels that a layer puts out; raises ValueError where it puts out none."""
    module = model.get_submodule(layer)
    _, activation = scores_and_activation(model, images[:1], module)
    return activation.shape[stated_layout(model, module, activation.shape, images[:1].shape).channels]


def refusals(model: Forward, images: Tensor, methods: Iterable[str]) -> dict[str, str]:
    """The methods that have no meaning for a model, each with what it says.

    Args:
        model: as for :func:`carry_out`.
        images: (B, C, H, W), of which the first is tried.
        methods: to be tried, those that look at what the model is made of; the others work for any model.
    """
    found = {}
    for method in methods:
        if not looks_inside(method) and method not in PARTICULAR:
            continue
        plan = Plan((QUICKER.get(method, method),))
        try:
            carry_out(plan, model, images[:1], images.new_zeros(1, dtype=torch.int64), Material(), chunk=1)
        except Exception as error:  # whatever a network raises that is made otherwise than a method expects
            found[method] = str(error)
    return found
