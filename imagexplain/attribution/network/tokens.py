"""Layout of a layer's output: the places of channels and pixels in maps, windows of channels-last, rows of tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from imagexplain.errors import LayerError

PREFIX_TOKENS = re.compile(r"(cls|class|dist|distill\w*|reg|register)_?(?:tokens?|embedding)(?:_?\d+)?")
"""Names of the parameters (1, tokens, K), or (K,) of one, that are put before the patches; a number behind one says
which branch's it is."""

IN_ONE_DIMENSION = (nn.Conv1d, nn.AvgPool1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)
"""Layers whose outputs (B, K, N) are no rows of tokens: their channels come first, and a pool leaves one place."""

MOST_PREFIX = 8
"""Largest number of prefix tokens (class, distillation, registers) of a model that does not state their number."""

LARGEST_DISTORTION = 1.5
"""Factor by which a map may be wider or narrower than its image, beyond rounding; unpadded convolutions do so."""


@dataclass(frozen=True)
class Layout:
    """Layout of a layer's output.

    Attributes:
        height, width: Sides of the grid of places.
        channels: Dimension of the channels, 1 or −1.
        prefix: Number of tokens before those of the grid; None where the output is not a row of tokens.
    """

    height: int
    width: int
    channels: int
    prefix: int | None = None

    def maps(self, output: Tensor) -> Tensor:
        """View (B, K, h, w) of the output, or of its gradient, without prefix tokens."""
        if self.prefix is not None:
            output = output[:, self.prefix :].unflatten(1, (self.height, self.width))
        return output if self.channels == 1 else output.movedim(-1, 1)


def layout_of(
    shape: Sequence[int],
    images: Sequence[int],
    prefix: int | None = None,
    grids: Sequence[tuple[int, int]] = (),
    channels: int | None = None,
) -> Layout:
    """Layout of a layer's output, from what the model states, from its shape and from that of the images.

    Four dimensions are maps (B, K, h, w), unless (B, h, w, K) fits the images' aspect ratio better; where both fit,
    what is stated decides. Three are tokens (B, N, K): the last h · w of them are the grid, those before it are prefix.
    A grid that is stated is taken if the tokens are as many. Else it is one of square patches that fits the image; of
    several one that divides the image is preferred, then the largest.

    Args:
        shape: Shape of the layer's output.
        images: Shape (B, C, H, W) of the model's input.
        prefix: Number of prefix tokens as the model states it; taken if there is a grid for it.
        grids: Grids (h, w) as the model states them, the likeliest first.
        channels: Dimension of the channels of an output with four, 1 or −1, as the layer states it.

    Raises:
        ValueError: no layout fits, or several do alike and nothing stated chooses: grids with the same prefix, or with
            prefixes of more than the one token that is usual.
    """
    height, width = images[-2:]
    if not shape or shape[0] != images[0]:
        raise LayerError("layer", f"wanted an output with {images[0]} rows, one for each image, got {tuple(shape)}")
    if len(shape) == 4:
        first, last = (_misfit(shape[i], shape[i + 1], height, width) for i in (2, 1))
        if channels is not None and max(first, last) <= math.log(LARGEST_DISTORTION):
            return _maps(shape, channels)
        if min(first, last) <= math.log(LARGEST_DISTORTION):
            return _maps(shape, 1 if first <= last else -1)
    if len(shape) == 3:
        for before in [prefix, 0] if prefix is not None else range(MOST_PREFIX + 1):
            for h, w in grids:
                if shape[1] == before + h * w:
                    return Layout(h, w, -1, before)
        if (layout := _derived(shape[1], height, width, prefix)) is not None:
            return layout
    raise LayerError(
        "layer",
        f"wanted an output (B, K, h, w), (B, h, w, K) or (B, tokens, K) that fits images of {height} × {width}, "
        f"got {tuple(shape)}",
    )


def stated_layout(model: nn.Module, layer: nn.Module, shape: Sequence[int], images: Sequence[int]) -> Layout:
    """Layout of one layer's output, from what it and the model state; arguments and errors as `layout_of`."""
    if isinstance(layer, IN_ONE_DIMENSION):
        raise LayerError("layer", f"wanted maps or rows of tokens, got {tuple(shape)} of a {type(layer).__name__}")
    if len(shape) == 3:  # all else is of no use, and a search through the model
        return layout_of(shape, images, stated_prefix(model), stated_grids(model, images))
    return layout_of(shape, images, channels=stated_channels(model, layer))


def stated_prefix(model: nn.Module) -> int | None:
    """Number of prefix tokens where the model or a part of it states one, as timm's transformers do.

    Else it is that of the learned tokens with the usual names, as in torchvision's.
    """
    for module in _stating(model, "num_prefix_tokens"):
        if isinstance(stated := _stated(module, "num_prefix_tokens"), int):
            return stated
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim != 1 and (parameter.ndim != 3 or parameter.shape[0] != 1):
            continue
        if named := PREFIX_TOKENS.fullmatch(name.rpartition(".")[2]):
            counts[named[1]] = max(counts.get(named[1], 0), 1 if parameter.ndim == 1 else parameter.shape[1])
    return sum(counts.values()) or None


def stated_grids(model: nn.Module, images: Sequence[int]) -> list[tuple[int, int]]:
    """Grids (h, w) of patches that parts of the model state, for images (B, C, H, W); the likeliest first.

    A part states one by ``grid_size``, or by ``patch_size`` and the number of patches or the images' size. Where that
    size is another than these images have, the patches that they make come first.
    """
    height, width = images[-2:]
    grids: list[tuple[int, int]] = []
    for module in _stating(model, "patch_size", "grid_size"):
        own = _pair(_stated(module, "img_size")) or _pair(_stated(module, "image_size"))
        patch, fixed = _pair(_stated(module, "patch_size")), _pair(_stated(module, "grid_size"))
        if fixed is None and (patch is None or (own is None and not hasattr(module, "num_patches"))):
            continue
        if fixed is None and own is not None and patch is not None:
            fixed = (own[0] // patch[0], own[1] // patch[1])
        here = (height // patch[0], width // patch[1]) if patch is not None else None
        if callable(ask := _stated(module, "dynamic_feat_size")):
            here = _pair(ask((height, width)))
        grids += [grid for grid in ((fixed, here) if own == (height, width) else (here, fixed)) if grid is not None]
    return list(dict.fromkeys(grids))


def stated_channels(model: nn.Module, layer: nn.Module) -> int | None:
    """Dimension of the channels in a layer's output of four dimensions (B, …), 1 or −1, where it is stated.

    Convolutions, norms and linear layers have it in their definition; timm's models have
    ``output_fmt``, which holds for stages and blocks.
    """
    if isinstance(layer, nn.LayerNorm):
        return 1 if "2d" in type(layer).__name__ else -1  # such as torchvision's LayerNorm2d, which turns maps itself
    if isinstance(layer, _ConvNd | _NormBase | nn.GroupNorm):
        return 1
    if isinstance(layer, nn.Linear):
        return -1
    for module in (layer, *_stating(model, "output_fmt")):
        if (stated := _stated(module, "output_fmt")) is not None:
            return {"NCHW": 1, "NHWC": -1}.get(str(getattr(stated, "value", stated)))
    return None


def _stating(model: nn.Module, *names: str) -> Iterator[nn.Module]:
    """Modules of the model that have one of these attributes, or whose class has."""
    classes: dict[type, bool] = {}
    for module in model.modules():
        if (kind := type(module)) not in classes:
            classes[kind] = any(hasattr(kind, name) for name in names)
        if classes[kind] or not vars(module).keys().isdisjoint(names):
            yield module


def _stated(module: nn.Module, name: str) -> Any:
    """Attribute of a module or its class, None where there is none.

    ``getattr`` would go on to the module's parameters, buffers and parts, which takes most of the time of a search
    through a model, as most modules state nothing.
    """
    return getattr(module, name, None) if name in vars(module) or hasattr(type(module), name) else None


def _pair(value: object) -> tuple[int, int] | None:
    """Both sides of a size that is stated as one or two numbers of at least 1."""
    sides = (value, value) if isinstance(value, int) else value
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        return None
    first, second = sides
    return (first, second) if isinstance(first, int) and isinstance(second, int) and min(sides) >= 1 else None


def fits(h: int, w: int, images: Sequence[int]) -> bool:
    """Test whether a grid of h × w may lie over images (B, C, H, W)."""
    return _misfit(h, w, *images[-2:]) <= math.log(LARGEST_DISTORTION)


def _maps(shape: Sequence[int], channels: int) -> Layout:
    height, width = shape[2:] if channels == 1 else shape[1:3]
    return Layout(height, width, channels)


def _derived(tokens: int, height: int, width: int, prefix: int | None) -> Layout | None:
    """Grid of square patches that leaves the prefix that is stated, or else the likeliest; None if none fits."""
    readings = sorted(
        {
            (tokens - h * w != prefix, not exact, tokens - h * w, h, w)
            for h, w, exact in _patch_grids(height, width)
            if 0 <= tokens - h * w <= max(MOST_PREFIX, prefix or 0)
        }
    )
    if not readings:
        return None
    unlike, _, before, h, w = readings[0]
    others = [other for other in readings[1:] if other[3:] != (h, w) and other[3] * other[4] > 1]
    known = 3 if before <= 1 or not unlike else 2  # of several with a prefix that is unusual, none is likelier
    rivals = [other for other in others if other[:known] == readings[0][:known]]
    if rivals:
        found = " or ".join(f"{b} and a grid of {y} × {x}" for _, _, b, y, x in [readings[0], *rivals])
        raise LayerError(
            "layer",
            "wanted tokens whose grid the model states, such as by `patch_embed.grid_size` and "
            f"`num_prefix_tokens`, got {tokens}, which over images of {height} × {width} may be {found}",
        )
    return Layout(h, w, -1, before)


def _misfit(h: int, w: int, height: int, width: int) -> float:
    """Logarithm of the ratio of h : w to height : width, as a distance; 0 if sides rounded up or down explain it."""
    if h < 1 or w < 1 or h > height or w > width:
        return math.inf
    return max(0.0, abs(math.log(h * width / (w * height))) - math.log1p(1 / min(h, w)))


def _patch_grids(height: int, width: int) -> Iterator[tuple[int, int, bool]]:
    """Grids (h, w) of square patches, the last row and column dropped or padded, and whether each fits exactly."""
    for patch in range(1, min(height, width) + 1):
        exact = height % patch == 0 and width % patch == 0
        yield height // patch, width // patch, exact
        if not exact:
            yield -(-height // patch), -(-width // patch), False
