"""Layers of a model: finding one by name or by what the model does, and seeing what it puts out."""

from __future__ import annotations

import copy
import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass
from itertools import islice
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from imagexplain.attribution.network.forward import check_graph, class_scores, isolated
from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.attribution.network.tokens import (
    IN_ONE_DIMENSION,
    Layout,
    layout_of,
    stated_channels,
    stated_grids,
    stated_prefix,
)
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.targets import check_images
from imagexplain.errors import LayerError, UnsupportedModelError

SOFTMAXES = {F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax}
ATTENTIONS = {F.scaled_dot_product_attention, F.multi_head_attention_forward}

Layer = str | nn.Module | None
"""A layer's dotted name, the module itself, or None for :func:`default_layer`."""


def layer_named(model: nn.Module, name: str) -> nn.Module:
    """Module at a dotted path, as ``named_modules`` writes it (``layer4``, ``blocks.11.norm1``).

    Raises:
        ValueError: no such module; the message holds the nearest names.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if name and name in modules:
        return modules[name]
    nearest = difflib.get_close_matches(name, [other for other in modules if other], n=3, cutoff=0.0)
    raise LayerError("layer", f"wanted the name of a module, such as {', '.join(nearest)}, got {name!r}")


@isolated
def default_layer(model: nn.Module, images: Tensor) -> nn.Module:
    """Last layer with places on which the scores depend, and as many channels as the last one with places at all.

    In a convolutional network this is the last stage. In a transformer that pools tokens it is the last norm. In one
    that reads only the class token, patch tokens are of no use after the last attention, so that the norm before it is
    taken, no projection within the attention (queries, keys or values).

    Not taken are layers that run more than once, and a head that scores each place beside another one that scores the
    image. A layer whose output the model changes in place afterwards is taken only if there is no other of its size.

    The search is one forward pass of one image of noise, in ``eval()``, and a backward pass as far as layers are tried.

    Args:
        images: Images (B, C, H, W), of which only shape, type and device matter.

    Raises:
        ValueError: no layer has an output with more than one place on which the scores depend.
    """
    noise = torch.randn((1, *images.shape[1:]), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise.to(images).requires_grad_()
    with torch.enable_grad():
        outputs, scores = _outputs(model, noise)
    check_graph(scores.requires_grad)
    of_tokens = any(seen.output.ndim == 3 for seen in outputs)
    prefix, grids = (stated_prefix(model), stated_grids(model, noise.shape)) if of_tokens else (None, [])

    def layout_with_places(seen: _Seen) -> Layout | None:
        if isinstance(seen.module, IN_ONE_DIMENSION):
            return None
        try:
            order = stated_channels(model, seen.module) if seen.output.ndim == 4 else None
            layout = layout_of(seen.output.shape, noise.shape, prefix, grids, order)
        except ValueError:
            return None
        return layout if layout.height * layout.width > 1 else None

    heads = [seen for seen in outputs if _is_side_head(seen, layout_with_places, scores, noise)]
    for head in heads:
        head.output.register_hook(torch.zeros_like)  # what it reads alone is not what the image's score is made of

    def candidates() -> Iterator[tuple[_Seen, Layout]]:
        channels = None
        for seen in reversed(outputs):
            if seen in heads or (layout := layout_with_places(seen)) is None:
                continue
            own = seen.output.shape[layout.channels]
            channels = channels or own
            if own == channels:
                yield seen, layout

    overwritten = None
    for seen, layout, gradient in _with_gradients(scores, candidates()):
        if gradient is None or not layout.maps(gradient).any():
            continue
        if overwritten is not None and overwritten[1:] != (layout.height, layout.width):
            break
        if seen.output._version == seen.version:
            return seen.module
        overwritten = overwritten or (seen.module, layout.height, layout.width)
    if overwritten is not None:
        return overwritten[0]
    raise LayerError(
        "layer", "wanted the name of one, for none was found whose output has several places on which the scores depend"
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """Output of a module in its only run, with the tensor's version, which counts the changes in place."""

    module: nn.Module
    output: Tensor
    version: int


def _outputs(model: nn.Module, images: Tensor) -> tuple[list[_Seen], Tensor]:
    """Outputs of the modules that ran once, but for those within an attention, in order; and the model's scores."""
    outputs: list[_Seen] = []
    runs: Counter[nn.Module] = Counter()
    running: list[nn.Module] = []

    def begin(module: nn.Module, *_: object) -> None:
        running.append(module)

    def end(module: nn.Module, _: object, output: object) -> None:
        running.pop()
        runs[module] += 1
        found = main_tensor(output)
        if found is None or not found.requires_grad:
            return
        # An Identity has the output of the layer before it, and a model that puts out several often that of its last
        # layer: that is the one to name.
        handed_on = found is not output and any(found is seen.output for seen in outputs)
        if not handed_on and not isinstance(module, nn.Identity):
            outputs.append(_Seen(module, found, found._version))

    with ExitStack() as stack:
        for module in model.modules():
            if module is not model:
                stack.callback(module.register_forward_pre_hook(begin).remove)
                stack.callback(module.register_forward_hook(end).remove)
        attention = stack.enter_context(_Attention(running))
        scores = class_scores(model, images)
    inner = {part for module in attention.modules for part in module.modules() if part is not module}
    return [seen for seen in outputs if runs[seen.module] == 1 and seen.module not in inner], scores


def _with_gradients(
    scores: Tensor, outputs: Iterator[tuple[_Seen, Layout]]
) -> Iterator[tuple[_Seen, Layout, Tensor | None]]:
    """Outputs from the last on, each with the scores' gradient by it, None where autograd knows none.

    One, two, four, … gradients are taken at a time, so that a search that ends early goes back through few layers.
    """
    # Weights that differ, for the sum of the scores itself is constant in some models.
    weights = torch.arange(1, scores.numel() + 1).to(scores).view_as(scores)
    count = 1
    while some := list(islice(outputs, count)):
        gradients = torch.autograd.grad(
            scores, [seen.output for seen, _ in some], grad_outputs=weights, allow_unused=True, retain_graph=True
        )
        yield from ((*pair, gradient) for pair, gradient in zip(some, gradients, strict=True))
        count *= 2


class _Attention(FunctionCalls):
    """Recorder of the modules that call attention, or the softmax that makes one: the innermost that have parts."""

    def __init__(self, running: list[nn.Module]) -> None:
        super().__init__()
        self.running, self.modules = running, set[nn.Module]()

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = function(*args, **kwargs)
        if function in ATTENTIONS or (function in SOFTMAXES and result.ndim > 2):
            self.modules.update(next(([module] for module in reversed(self.running) if any(module.children())), []))
        return result


def _is_side_head(
    seen: _Seen, layout_of_output: Callable[[_Seen], Layout | None], scores: Tensor, images: Tensor
) -> bool:
    """Test whether this scores each place for each class, while the image's scores have another source too."""
    if not isinstance(seen.module, nn.Linear | nn.Conv2d) or scores.shape[-1] not in seen.output.shape[1:]:
        return False
    layout = layout_of_output(seen)
    if layout is None or seen.output.shape[layout.channels] != scores.shape[-1]:
        return False
    return depends(scores, seen.output) and depends(scores, images, without=seen.output)


def depends(output: Tensor, earlier: Tensor, without: Tensor | None = None) -> bool:
    """Test whether autograd knows the output as a function of the earlier one, by a way that does not pass a third."""
    if not output.requires_grad or not earlier.requires_grad:
        return False
    seen = set() if without is None else {get_gradient_edge(without).node}
    return reaches(get_gradient_edge(output).node, get_gradient_edge(earlier).node, seen)


def reaches(start: Node, goal: Node, without: Collection[Node] = ()) -> bool:
    """Test whether a way back through autograd's graph leads from one node to another and passes none of some."""
    seen = set(without)
    waiting: list[Node | None] = [start]
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return False


def chosen_layer(model: nn.Module, images: Tensor, layer: Layer) -> nn.Module:
    """Module that the argument ``layer`` means.

    Raises:
        ValueError: no such module in the model.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError("model", f"wanted a module, which has layers, got {type(model).__name__}")
    check_visible(model, "module")
    check_images(images)
    if layer is None:
        return default_layer(model, images)
    if isinstance(layer, str):
        return layer_named(model, layer)
    if not any(layer is module for module in model.modules()):
        raise LayerError("layer", f"wanted a module of the model, got another {type(layer).__name__}")
    return layer


def main_tensor(output: object) -> Tensor | None:
    """Tensor that a layer puts out: the output, or the first part of a tuple or of fields in order; None for none.

    Blocks of transformers' give their tokens so, followed by weights of attention or copies in other shapes.
    """
    if isinstance(output, tuple) and output:
        output = output[0]
    elif has_fields(output) and output:
        output = next(iter(output.values()))
    return output if isinstance(output, Tensor) else None


def has_fields(output: object) -> TypeGuard[MutableMapping[str, object]]:
    """Tell if this is an output as transformers' models give it: a mapping whose keys are fields, in a fixed order."""
    return isinstance(output, MutableMapping) and is_dataclass(output)


@contextmanager
def output_replaced(layer: nn.Module, replacement: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the layer's output within the block, and the first part of an output of several: :func:`main_tensor`."""

    def hook(module: nn.Module, _: object, output: object) -> object:
        found = main_tensor(output)
        if found is None:
            raise LayerError("layer", f"wanted one that puts out a tensor, got a {type(output).__name__}")
        replaced = replacement(found)
        if isinstance(output, tuple):
            return (replaced, *output[1:])
        if has_fields(output):
            others = copy.copy(output)
            others[next(iter(others))] = replaced
            return others
        return replaced

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def scores_and_activation(
    model: nn.Module, images: Tensor, layer: nn.Module, *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Run the model and return its scores and the output of one of its layers.

    Args:
        images: Images (B, C, H, W).
        layer: Module of the model that runs once in a forward pass.
        create_graph: Graph from the images to the activation, kept too.

    Returns:
        (B, classes) scores and the layer's own output, of which the scores are a function that autograd knows. Nothing
        that the model does later, in place, changes it.

    Raises:
        ValueError: a layer that does not run once, puts out no tensor, or is of no use to the scores.
    """
    seen: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        activation = (output if create_graph else output.detach()).clone()
        seen.append(activation if activation.requires_grad else activation.requires_grad_())
        return activation.clone()

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if create_graph:  # the fused kernels of attention have no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(output_replaced(layer, keep))
        scores = class_scores(model, images)
    if len(seen) != 1:
        raise LayerError("layer", f"wanted one that runs once in a forward pass, got one that ran {len(seen)} times")
    if not depends(scores, seen[0]) and (scores.requires_grad or _has_graph(model, images[:1])):
        raise LayerError("layer", "wanted one on which the scores depend, got one on which they do not")
    return scores, seen[0]


def _has_graph(model: nn.Module, images: Tensor) -> bool:
    """Test whether autograd knows the model's scores as a function of images."""
    with torch.enable_grad():
        return class_scores(model, images.detach().requires_grad_()).requires_grad
