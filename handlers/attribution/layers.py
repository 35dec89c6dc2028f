"""Layers of a model: finding one by name or by what the model does, and seeing what it puts out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from handlers.attribution.forward import check_graph, class_scores, isolated
from handlers.attribution.targets import check_images
from handlers.attribution.tokens import stated_prefix, to_maps

Layer = str | nn.Module | None
"""A layer's dotted name, the module itself, or None for :func:`default_layer`."""


def layer_named(model: nn.Module, name: str) -> nn.Module:
    """The module at a dotted path, as ``named_modules`` writes it (``layer4``, ``blocks.11.norm1``).

    Raises:
        ValueError: no such module; the message holds the nearest names.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if name and name in modules:
        return modules[name]
    nearest = difflib.get_close_matches(name, [other for other in modules if other], n=3, cutoff=0.0)
    raise ValueError(f"layer: wanted the name of a module, such as {', '.join(nearest)}, got {name!r}")


@isolated
def default_layer(model: nn.Module, images: Tensor) -> nn.Module:
    """The last layer with places on which the scores depend, and as many channels as the last one with places at all.

    In a convolutional network this is the last stage. In a transformer that pools tokens it is the last norm. In one
    that reads only the class token, patch tokens are of no use after the last attention, so that the norm before it is
    taken; within the attention channels are more (queries, keys and values) or fewer (a head's).

    Found in one forward and backward pass of one image of noise, in ``eval()``.

    Args:
        images: (B, C, H, W), of which only shape, type and device matter.

    Raises:
        ValueError: no layer has an output with more than one place on which the scores depend.
    """
    noise = torch.randn((1, *images.shape[1:]), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise.to(images).requires_grad_()
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: object, output: object) -> None:
        # An Identity has the output of the layer before it, which is the one to name.
        if isinstance(output, Tensor) and output.requires_grad and not isinstance(module, nn.Identity):
            outputs.append((module, output))

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for module in model.modules():
            if module is not model:
                stack.callback(module.register_forward_hook(keep).remove)
        scores = class_scores(model, noise)
    check_graph(scores.requires_grad)
    gradients: tuple[Tensor | None, ...] = ()
    if outputs:
        # Weights that differ, for the sum of the scores itself is constant in some models.
        weights = torch.arange(1, scores.numel() + 1).to(scores).view_as(scores)
        gradients = torch.autograd.grad(
            scores, [output for _, output in outputs], grad_outputs=weights, allow_unused=True
        )
    prefix, channels = stated_prefix(model), None
    for (module, output), gradient in reversed(list(zip(outputs, gradients, strict=False))):
        try:
            maps = to_maps(output if gradient is None else gradient, noise.shape, prefix)
        except ValueError:
            continue
        if maps[0, 0].numel() == 1:
            continue
        channels = channels or maps.shape[1]
        if maps.shape[1] == channels and gradient is not None and maps.any():
            return module
    raise ValueError(
        "layer: wanted the name of one, for none was found whose output has several places on which the scores depend"
    )


def chosen_layer(model: nn.Module, images: Tensor, layer: Layer) -> nn.Module:
    """The module that is meant.

    Raises:
        ValueError: no such module in the model.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: wanted a module, which has layers, got {type(model).__name__}")
    check_images(images)
    if layer is None:
        return default_layer(model, images)
    if isinstance(layer, str):
        return layer_named(model, layer)
    if not any(layer is module for module in model.modules()):
        raise ValueError(f"layer: wanted a module of the model, got another {type(layer).__name__}")
    return layer


@contextmanager
def output_replaced(layer: nn.Module, replacement: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block the model goes on with the replacement of the layer's output; of a tuple, of its first part."""

    def hook(module: nn.Module, _: object, output: object) -> object:
        if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
            return (replacement(output[0]), *output[1:])
        if isinstance(output, Tensor):
            return replacement(output)
        raise ValueError(f"layer: wanted one that puts out a tensor, got a {type(output).__name__}")

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def scores_and_activation(
    model: nn.Module, images: Tensor, layer: nn.Module, *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Run the model and see what one of its layers puts out.

    Args:
        images: (B, C, H, W).
        layer: a module of the model that runs once in a forward pass.
        create_graph: keep the graph from the images to the activation too.

    Returns:
        (B, classes) scores and the layer's own output, of which the scores are a function that autograd knows. Nothing
        that the model does later, in place, changes it.

    Raises:
        ValueError: a layer that does not run once or puts out no tensor.
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
        raise ValueError(f"layer: wanted one that runs once in a forward pass, got one that ran {len(seen)} times")
    return scores, seen[0]
