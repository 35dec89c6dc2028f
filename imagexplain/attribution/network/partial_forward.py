"""Running the rest of a model: the outputs before a layer are taken from an earlier pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imagexplain.attribution.network.forward import scores_of_copy
from imagexplain.attribution.network.layers import has_fields, main_tensor, output_replaced, scores_and_activation


@dataclass(frozen=True)
class PartialForward:
    """A model behind one of its layers.

    Attributes:
        scores: Scores (B, classes) of the images.
        activation: Output (B, …) of the layer for them.
        run: Function from image indices (n,) and the layer's outputs for them (n, …) to scores (n, classes); quickest
            where all rows are of one image.
        resumes: Resumption: a run skips what comes before the layer.
    """

    scores: Tensor
    activation: Tensor
    run: Callable[[Tensor, Tensor], Tensor]
    resumes: bool


@torch.no_grad()
def split_at(model: nn.Module, images: Tensor, layer: nn.Module) -> PartialForward:
    """Split a model behind one of its layers, as far as that is possible without reading the model's code.

    Modules beside the path to the layer that ran once, before it, and put out a row for each image need not run again:
    their forward gives their earlier output. The code between modules runs as ever, so that shortcuts around the layer
    stay right. Where scores then come out otherwise than in a full pass, or not at all, everything runs, and the
    layer's output alone is replaced.

    Args:
        model: Module in ``eval()``; each image's row must not depend on the others.
        images: Images (B, C, H, W).
        layer: Module of the model that runs once in a forward pass.

    Raises:
        ValueError: as :func:`imagexplain.attribution.network.layers.scores_and_activation`.
    """
    earlier: dict[nn.Module, list[Any]] = {}
    reached: list[bool] = []  # with a tensor alone, which its forward may give

    def note(module: nn.Module, _: object, output: object) -> None:
        usable = not reached and main_tensor(output) is not None and _has_rows(output, len(images))
        # a copy, for what follows may overwrite it
        earlier.setdefault(module, []).append(_mapped(output, Tensor.clone) if usable else None)

    with ExitStack() as stack:
        stack.callback(layer.register_forward_hook(lambda *call: reached.append(isinstance(call[-1], Tensor))).remove)
        for module in _beside(model, layer):
            stack.callback(module.register_forward_hook(note).remove)
        scores, activation = (tensor.detach() for tensor in scores_and_activation(model, images, layer))
    known = {module: outputs[0] for module, outputs in earlier.items() if len(outputs) == 1 and outputs[0] is not None}

    def run(owner: Tensor, replacement: Tensor) -> Tensor:
        with output_replaced(layer, lambda _: replacement):
            return scores_of_copy(model, images[owner])

    def resume(owner: Tensor, replacement: Tensor, rows: Callable[[Tensor, Tensor], Tensor] = _rows) -> Tensor:
        with ExitStack() as stack:
            for module, output in known.items():
                again = partial(_mapped, output, lambda tensor: rows(tensor, owner))
                stack.enter_context(_forward_replaced(module, again))
            if reached[0]:
                stack.enter_context(_forward_replaced(layer, lambda: replacement))
                return scores_of_copy(model, rows(images, owner))
            return run(owner, replacement)

    def agrees(way: Callable[[Tensor, Tensor], Tensor], owner: Tensor) -> bool:
        try:
            again, expected = way(owner, activation[owner]), scores[owner]
            return torch.allclose(again, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
        except Exception:  # of whatever kind a model raises for shapes that do not match; a full run will raise its own
            return False

    # One row more than images, so that nothing that is as long as the batch by chance passes for its rows.
    owner = torch.arange(len(images) + 1, device=images.device) % len(images)
    if not agrees(resume, owner):
        return PartialForward(scores, activation, run, resumes=False)
    # Most of the outputs are read by nobody, and copying them takes longer than all that follows a late layer.
    shared = partial(resume, rows=_shared_rows)
    return PartialForward(scores, activation, shared if agrees(shared, owner[:1].expand(2)) else resume, resumes=True)


def _has_rows(output: Any, count: int) -> bool:
    """Test whether each tensor of an output has a row for each image; numbers, such as a grid's sides, are of all."""
    if isinstance(output, Tensor):
        return output.shape[:1] == (count,)
    parts = output.values() if has_fields(output) else output if type(output) is tuple else None
    return output is None or isinstance(output, int) if parts is None else all(_has_rows(part, count) for part in parts)


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Output of the same form as another one, each of its tensors changed."""
    if isinstance(output, Tensor):
        return change(output)
    if type(output) is tuple:
        return tuple(_mapped(part, change) for part in output)
    if has_fields(output):
        changed = copy.copy(output)
        for name, part in output.items():
            changed[name] = _mapped(part, change)
        return changed
    return output


def _rows(output: Tensor, owner: Tensor) -> Tensor:
    return output.index_select(0, owner)


def _shared_rows(output: Tensor, owner: Tensor) -> Tensor:
    """Rows of an output, without copies where all are of one image; a model that writes into such rows raises.

    A single row is copied, for torch would let the model write into it.
    """
    first = owner[:1]
    if len(owner) == 1 or not (owner == first).all():
        return _rows(output, owner)
    return output[int(first)].expand(len(owner), *output.shape[1:])


def _beside(model: nn.Module, layer: nn.Module) -> list[nn.Module]:
    """Modules that branch off the path from the model to the layer, and in place of lists their members."""
    parent, beside = model, []
    for name in next(name for name, module in model.named_modules() if module is layer).split("."):
        beside += [child for other, child in parent.named_children() if other != name]
        parent = parent.get_submodule(name)
    while lists := [module for module in beside if isinstance(module, nn.ModuleList | nn.ModuleDict)]:
        beside = [module for module in beside if module not in lists]
        beside += [child for members in lists for child in members.children()]
    return beside


@contextmanager
def _forward_replaced(module: nn.Module, output: Callable[[], Any]) -> Iterator[None]:
    """Replace a module's output within the block; a forward that the instance had of its own comes back after it."""
    attributes = vars(module)
    own = attributes.get("forward")
    attributes["forward"] = lambda *_, **__: output()
    try:
        yield
    finally:
        if own is None:
            del attributes["forward"]
        else:
            attributes["forward"] = own
