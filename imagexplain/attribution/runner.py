"""The run of a configured attribution, for a server, a contact sheet or a study.

Methods differ in what they want beside images and classes: a layer, a baseline, groups of pixels. An
:class:`AttributionConfig` names the method, :class:`AttributionInputs` hold whatever there is, and :func:`run` hands
each method what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.methods.guided_grad_cam import combine
from imagexplain.attribution.methods.smoothgrad import smooth
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.registry import METHODS, Method, Workload
from imagexplain.attribution.targets import Targets
from imagexplain.errors import UnsupportedModelError

FORWARD_SHARE = 1 / 3
"""Cost of a forward pass, as a share of a forward and a backward pass."""

SECONDS_PER_OPERATION = 1e-10
"""Time of an operation in a large matrix product or decomposition, float64 on a slow core; half of it was measured."""


@dataclass(frozen=True, eq=False)
class AttributionInputs:
    """Inputs of methods that take more than images and classes.

    Attributes:
        baselines: Baselines (D, B, C, H, W): starts of paths, and values of absent pixels; maps are averaged over the
            draws D.
        groups: Disjoint groups of each image, (B, H, W) int64.
        segments: Masks (S, H, W) of each image, bool, which may overlap.
        pictures: Pictures (B, H, W, 3), uint8: the images as the eye sees them.
        observe: Function that gets the integrated gradients that a map is made of, of the images in their order, or of
            each one's noisy copies.
        observe_covariance: Function that gets the index of an image and the covariance (G, G), float64, of the errors
            of its groups' values; more than once where its map is a mean.
    """

    baselines: Tensor | None = None
    groups: Tensor | None = None
    segments: Sequence[Tensor] | None = None
    pictures: Tensor | None = None
    observe: Callable[[Tensor], None] | None = None
    observe_covariance: Callable[[int, Tensor], None] | None = None

    def at(self, rows: Tensor) -> AttributionInputs:
        """Inputs of some images, or of copies of them, by their indices (n,)."""
        told = self.observe_covariance
        return AttributionInputs(
            baselines=None if self.baselines is None else self.baselines[:, rows],
            groups=None if self.groups is None else self.groups[rows],
            segments=None if self.segments is None else [self.segments[row] for row in rows.tolist()],
            pictures=None if self.pictures is None else self.pictures[rows],
            observe=self.observe,
            observe_covariance=None if told is None else lambda row, found: told(int(rows[row]), found),
        )


def run(
    plan: AttributionConfig, model: Forward, images: Tensor, targets: Tensor, inputs: AttributionInputs, *, chunk: int
) -> Tensor:
    """Compute the maps of a batch.

    Args:
        plan: Methods, their options and the layer.
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes); a module where the plan looks
            inside.
        images: Images (B, C, H, W) in model-input space, B at least 1.
        targets: Class indices (B,), int64.
        inputs: Baselines, groups, segments and pictures, as far as there are any.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, C, H, W) or (B, 1, H, W), detached.

    Raises:
        UnsupportedModelError: a model that the method does not support.
        LayerError: a layer that the model does not have, or none to look at.
        ArgumentError: whatever option or input does not fit, by name.
    """
    return product(plan, [_smoothed(method, plan, model, images, targets, inputs, chunk) for method in plan.methods])


def product(plan: AttributionConfig, maps: Sequence[Tensor]) -> Tensor:
    """Map of a plan from those of its methods, one or two: the map itself, or both multiplied as the plan says."""
    return maps[0] if len(maps) == 1 else combine(*maps, normalized=plan.normalized)


def _smoothed(
    method: str,
    plan: AttributionConfig,
    model: Forward,
    images: Tensor,
    targets: Tensor,
    inputs: AttributionInputs,
    chunk: int,
) -> Tensor:
    if METHODS[method].needs_module:
        network_of(method, model)
    if plan.smoothing is None:
        parts = torch.arange(len(images)).split(chunk)
        return torch.cat(
            [_maps(method, plan, model, images[rows], targets[rows], inputs.at(rows), chunk) for rows in parts]
        )
    smoothing = vars(plan.smoothing)

    def of_copies(index: int) -> Callable[[Forward, Tensor, Targets], Tensor]:
        def of(model: Forward, copies: Tensor, targets: Targets) -> Tensor:
            assert isinstance(targets, Tensor)
            own = inputs.at(torch.full((len(copies),), index))
            return _maps(method, plan, model, copies, targets, own, chunk)

        return of

    return torch.cat(
        [
            smooth(of_copies(b), model, images[b : b + 1], targets[b : b + 1], **smoothing, chunk=chunk)
            for b in range(len(images))
        ]
    )


def _maps(
    method: str,
    plan: AttributionConfig,
    model: Forward,
    images: Tensor,
    targets: Tensor,
    inputs: AttributionInputs,
    chunk: int,
) -> Tensor:
    """Maps of a batch by one method, averaged over the draws of the baseline."""
    takes, given = METHODS[method].parameters, dict(plan.options)
    options = {name: given[name] for name in given if name in takes}
    offered = {
        "layer": plan.layer,
        "groups": inputs.groups,
        "segments": inputs.segments,
        "pictures": inputs.pictures,
        "observe": inputs.observe,
        "observe_covariance": inputs.observe_covariance,
        "chunk": chunk,
    }
    options |= {name: value for name, value in offered.items() if name in takes and value is not None}
    attribute = partial(METHODS[method].function, model)
    if inputs.baselines is None:
        return attribute(images, targets, **options)
    if "references" in takes:
        each = zip(images.split(1), targets.split(1), inputs.baselines.unbind(1), strict=True)
        return torch.cat([attribute(image, target, references=own, **options) for image, target, own in each])
    names = [name for name in ("baselines", "fill") if name in takes]
    if not names:
        return attribute(images, targets, **options)
    if METHODS[method].own_draws:
        return attribute(images, targets, **{names[0]: inputs.baselines}, **options)
    return torch.stack([attribute(images, targets, **{names[0]: draw}, **options) for draw in inputs.baselines]).mean(0)


def evaluations(
    plan: AttributionConfig, size: tuple[int, int], *, draws: int | None = None, groups: int = 0, channels: int = 0
) -> int:
    """Approximate number of evaluations, forward and backward, for the map of one image; a forward pass counts less.

    Args:
        plan: Methods, their options and the layer.
        size: Height and width (H, W) of the image.
        draws: Number of draws of the baseline; None where none is given.
        groups: Number of groups of pixels.
        channels: Number of channels of the layer, for a method that takes them one by one.
    """
    rows = 0.0
    for method, work in _workloads(plan, Workload({}, size, draws or 1, groups, channels)):
        if draws is None:
            work = replace(work, draws=max(1, method.own_draws))
        rows += method.gradient_passes(work) + FORWARD_SHARE * method.forward_passes(work) + 2
    return math.ceil(rows * (plan.smoothing.samples if plan.smoothing else 1))


def most_groups(plan: AttributionConfig) -> int | None:
    """Largest number of groups of pixels with which the plan's methods do their work, None for any number."""
    bounds = [
        method.most_groups(work.options)
        for method, work in _workloads(plan, Workload({}, (1, 1)))
        if method.most_groups is not None
    ]
    return min(bounds, default=None)


def seconds_beside(plan: AttributionConfig, size: tuple[int, int], *, draws: int = 1, groups: int = 0) -> float:
    """Largest time of the map of one image beside the model's evaluations, where that depends on its options.

    Args:
        plan: Methods, their options and the layer.
        size: Height and width (H, W) of the image, which has three channels.
        draws: Number of draws of the baseline.
        groups: Number of groups of pixels.
    """
    works = _workloads(plan, Workload({}, size, draws, groups))
    each = sum(method.operations(work) for method, work in works) * SECONDS_PER_OPERATION
    return each * (plan.smoothing.samples if plan.smoothing else 1)


def _workloads(plan: AttributionConfig, size: Workload) -> Iterator[tuple[Method, Workload]]:
    """Methods of the plan, each with its own options."""
    for name in plan.methods:
        yield METHODS[name], replace(size, options=replace(plan, methods=(name,)).settings())


def network_of(name: str, model: Forward) -> nn.Module:
    """Model as the network that a method looks into; raises UnsupportedModelError for any other function."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError("model", f"{name} wants a network to look into, got a {type(model).__name__}")
    return model


def layer_name(plan: AttributionConfig, model: nn.Module, images: Tensor) -> str | None:
    """Dotted name of the layer that the plan's methods look at, None where they look at none; raises like them."""
    if "layer" not in plan.takes:
        return None
    layer = chosen_layer(model, images, plan.layer)
    return next(name for name, module in model.named_modules() if module is layer)


@isolated
@torch.no_grad()
def channels_of(model: nn.Module, images: Tensor, layer: str) -> int:
    """Number of channels that a layer puts out; raises LayerError where it puts out none."""
    module = model.get_submodule(layer)
    _, activation = scores_and_activation(model, images[:1], module)
    return activation.shape[stated_layout(model, module, activation.shape, images[:1].shape).channels]


def layer_and_channels(plan: AttributionConfig, model: nn.Module, images: Tensor) -> tuple[str, int]:
    """The dotted name of the layer that the plan's methods look at, and its channels; raises LayerError without one."""
    name = layer_name(plan, model, images)
    assert name is not None
    return name, channels_of(model, images, name)


def refusals(model: Forward, images: Tensor, methods: Iterable[str]) -> dict[str, str]:
    """Methods that a model does not support, each with the message of its refusal.

    Args:
        model: Model as for :func:`run`.
        images: Images (B, C, H, W), of which the first is tried.
        methods: Names of the methods in question; only those that depend on what the model is made of are tried, the
            others work for any model.
    """
    target = images.new_zeros(1, dtype=torch.int64)

    @cache
    def refusal(method: str) -> str | None:
        try:
            run(AttributionConfig((method,)), model, images[:1], target, AttributionInputs(), chunk=1)
        except Exception as error:  # whatever a network raises that is made otherwise than a method expects
            return str(error)
        return None

    tried = {name: METHODS[name].tried_by or name for name in methods if METHODS[name].needs_original}
    return {name: reason for name, trial in tried.items() if (reason := refusal(trial)) is not None}
