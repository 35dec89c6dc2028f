"""Where the channels and the places of a layer's output are: maps, windows of channels-last, rows of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

MOST_PREFIX = 8
"""Prefix tokens (class, distillation, registers) that a model which does not name their number may have, at most."""

LARGEST_DISTORTION = 1.5
"""A map may be this much wider or narrower than its image, beyond rounding; convolutions without padding do so."""


@dataclass(frozen=True)
class Layout:
    """How a layer's output is laid out.

    Attributes:
        height, width: of the grid of places.
        channels: the dimension of the channels, 1 or −1.
        prefix: tokens before those of the grid; None where the output is not a row of tokens.
    """

    height: int
    width: int
    channels: int
    prefix: int | None = None


def layout_of(shape: Sequence[int], images: Sequence[int], prefix: int | None = None) -> Layout:
    """The layout of a layer's output, from its shape and that of the images.

    Four dimensions are maps (B, K, h, w), unless (B, h, w, K) fits the images' aspect ratio better. Three are tokens
    (B, N, K): the last h · w of them are the grid of square patches that fits the images, those before it are prefix.
    Of several grids one that divides the image is preferred, then the largest.

    Args:
        shape: of the layer's output.
        images: (B, C, H, W) of the model's input.
        prefix: prefix tokens as the model states them; what it states is taken if there is a grid for it.

    Raises:
        ValueError: no layout fits.
    """
    height, width = images[-2:]
    if not shape or shape[0] != images[0]:
        raise ValueError(f"layer: wanted an output with {images[0]} rows, one for each image, got {tuple(shape)}")
    if len(shape) == 4:
        first, last = (_misfit(shape[i], shape[i + 1], height, width) for i in (2, 1))
        if min(first, last) <= math.log(LARGEST_DISTORTION):
            return Layout(shape[2], shape[3], 1) if first <= last else Layout(shape[1], shape[2], -1)
    if len(shape) == 3:
        grids = [
            (shape[1] - h * w != prefix, not exact, shape[1] - h * w, h, w)
            for h, w, exact in _patch_grids(height, width)
            if 0 <= shape[1] - h * w <= max(MOST_PREFIX, prefix or 0)
        ]
        if grids:
            *_, tokens, h, w = min(grids)
            return Layout(h, w, -1, tokens)
    raise ValueError(
        f"layer: wanted an output (B, K, h, w), (B, h, w, K) or (B, tokens, K) that fits images of {height} × {width}, "
        f"got {tuple(shape)}"
    )


def to_maps(activation: Tensor, images: Sequence[int], prefix: int | None = None) -> Tensor:
    """A view (B, K, h, w) of a layer's output or of its gradient, without prefix tokens; arguments as `layout_of`."""
    layout = layout_of(activation.shape, images, prefix)
    if layout.prefix is not None:
        activation = activation[:, layout.prefix :].unflatten(1, (layout.height, layout.width))
    return activation if layout.channels == 1 else activation.movedim(-1, 1)


def stated_prefix(model: nn.Module) -> int | None:
    """The number of prefix tokens where the model or a part of it states one, as timm's transformers do."""
    for module in model.modules():
        if isinstance(stated := getattr(module, "num_prefix_tokens", None), int):
            return stated
    return None


def fits(h: int, w: int, images: Sequence[int]) -> bool:
    """Whether a grid of h × w may lie over images (B, C, H, W)."""
    return _misfit(h, w, *images[-2:]) <= math.log(LARGEST_DISTORTION)


def _misfit(h: int, w: int, height: int, width: int) -> float:
    """How far h : w is from height : width, as a logarithm; 0 if sides rounded up or down explain it."""
    if h < 1 or w < 1 or h > height or w > width:
        return math.inf
    return max(0.0, abs(math.log(h * width / (w * height))) - math.log1p(1 / min(h, w)))


def _patch_grids(height: int, width: int) -> Iterator[tuple[int, int, bool]]:
    """All grids (h, w) of square patches, the last row and column dropped or padded, and whether they fit exactly."""
    for patch in range(1, min(height, width) + 1):
        exact = height % patch == 0 and width % patch == 0
        yield height // patch, width // patch, exact
        if not exact:
            yield -(-height // patch), -(-width // patch), False
