"""Mimetic initialisation: attention that begins as trained attention looks, so that a small transformer learns sooner.

Source: Trockman, Kolter 2023, "Mimetic Initialization of Self-Attention Layers", arXiv 2305.09828: queries and keys
whose product is near a multiple of the identity, values and projection whose product is near a negative one, and
sinusoidal positions. Trained from the usual random start, a vision transformer has to find these first.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor

QUERY_KEY = (0.7, 0.7)
VALUE_PROJECTION = (0.4, -0.4)
"""Weights of the noise and of the identity in the two products; the paper's for vision transformers."""


@torch.no_grad()
def start(network: Any) -> None:
    """Give a vision transformer of timm, with learned positions and a class token, this start.

    Draws come from torch's global generator.
    """
    grid = network.patch_embed.grid_size
    positions = build_sincos2d_pos_embed(grid, dim=network.embed_dim)  # (h·w, K)
    network.pos_embed[0, network.num_prefix_tokens :] = positions
    network.pos_embed[0, : network.num_prefix_tokens] = 0
    for block in network.blocks:
        attention = block.attn
        channels, heads = attention.proj.weight.shape[0], attention.num_heads
        queries, keys, values = attention.qkv.weight.chunk(3)  # each (K, K), head after head
        for query, key in zip(queries.chunk(heads), keys.chunk(heads), strict=True):
            left, right = _factors(channels, len(query), *QUERY_KEY)
            query.copy_(left.T)
            key.copy_(right.T)
        left, right = _factors(channels, channels, *VALUE_PROJECTION)
        attention.proj.weight.copy_(left)
        values.copy_(right.T)


def _factors(channels: int, rank: int, noise: float, identity: float) -> tuple[Tensor, Tensor]:
    """A and B, (channels, rank), with A Bᵀ the best of that rank for noise · Z + identity · I, Z of variance 1/K."""
    wanted = noise * torch.randn(channels, channels) / channels**0.5 + identity * torch.eye(channels)
    left, sizes, right = torch.linalg.svd(wanted)
    root = sizes[:rank].sqrt()
    return left[:, :rank] * root, right.T[:, :rank] * root
