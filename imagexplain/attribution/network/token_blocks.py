"""Blocks of a transformer that keep one row of tokens: each holds one attention, and adds to what it is given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn

from imagexplain.attribution.network.attention_capture import AttentionLayer, attention_layers
from imagexplain.errors import UnsupportedModelError


@dataclass(frozen=True)
class TokenBlocks:
    """Blocks of a transformer.

    Attributes:
        modules: Block around each layer of attention, in order; each runs once.
        grid: Height and width (h, w) of the grid of patch tokens.
        prefix: Number of tokens before them.
    """

    modules: list[nn.Module]
    grid: tuple[int, int]
    prefix: int

    @property
    def tokens(self) -> int:
        return self.prefix + self.grid[0] * self.grid[1]

    def maps(self, values: Tensor) -> Tensor:
        """Maps (B, 1, h, w) of the tokens' values (B, tokens), without prefix tokens."""
        return values[:, self.prefix :].unflatten(1, (1, *self.grid))


def token_blocks(model: nn.Module, images: Tensor) -> TokenBlocks:
    """Find the block around each layer of attention: one forward pass of the first image.

    Of the modules that run at one attention only, and are given a row of its tokens, a block is the outermost that
    is a member of a list or sequence, as libraries build them, or else the outermost.

    Args:
        model: Module in ``eval()`` that turns (B, C, H, W) into scores (B, classes).
        images: Images (B, C, H, W) of the sides that the model wants.

    Raises:
        ValueError: as :func:`imagexplain.attribution.network.attention_capture.attention_layers`, and a layer without
            such a block, as in windows.
    """
    _, layers = attention_layers(model, images[:1])
    counts = Counter(module for layer in layers for module, _ in layer.callers)
    members = {
        child
        for module in model.modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        for child in module.children()
    }
    blocks = []
    for number, layer in enumerate(layer for layer in layers if not layer.pools):
        around = [module for module, shape in layer.callers if counts[module] == 1 and _is_row(shape, layer)]
        found = next((module for module in around if module in members), around[0] if around else None)
        if found is None or layer.grid != layers[0].grid or layer.shape[1] > 1:
            raise UnsupportedModelError(
                "model",
                "wanted a transformer whose attention lies in blocks that keep one row of tokens (such as ViT), "
                f"got another around its layer {number}",
            )
        blocks.append(found)
    return TokenBlocks(blocks, layers[0].grid, layers[0].prefix)


def _is_row(shape: tuple[int, ...], layer: AttentionLayer) -> bool:
    return len(shape) == 3 and shape[:2] == (1, layer.tokens)
