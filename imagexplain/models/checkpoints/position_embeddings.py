"""Position embeddings of a ViT for another grid of patches than its checkpoint's, as MAE resizes them.

The grid is a picture with a channel per dimension, resized bicubically *without* antialiasing. timm's own resize
antialiases, and then the network is another than the one that its authors fine-tuned: the embeddings differ by a tenth
of the largest value towards a larger grid, and by half of it towards a smaller one.

Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", and ``util/pos_embed.py`` of
https://github.com/facebookresearch/mae; no code of theirs is here.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from imagexplain.errors import ArgumentError


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int], prefix_tokens: int) -> Tensor:
    """Resize the position embeddings of a square grid of patches; those of a grid of that size come back as they are.

    Args:
        embedding: Position embeddings (1, P + n², D), row by row after those of the prefix.
        grid: Rows and columns of the wanted grid.
        prefix_tokens: Number P of tokens before the grid's, such as the class token, whose embeddings are kept.

    Returns:
        Position embeddings (1, P + rows · columns, D).

    Raises:
        ArgumentError: embeddings of another shape, or a grid without patches.

    Example:
        >>> import torch
        >>> from imagexplain.models.checkpoints.position_embeddings import resize_position_embedding
        >>> resize_position_embedding(torch.zeros(1, 1 + 14 * 14, 8), (10, 10), prefix_tokens=1).shape
        torch.Size([1, 101, 8])
    """
    if min(grid) < 1:
        raise ArgumentError("grid", f"wanted at least one row and one column, got {list(grid)}")
    patches = embedding.shape[1] - prefix_tokens if embedding.ndim == 3 else 0
    side = isqrt(max(patches, 0))
    if side == 0 or side**2 != patches or len(embedding) != 1:
        wanted = f"wanted position embeddings (1, {prefix_tokens} + a square, D)"
        raise ArgumentError("embedding", f"{wanted}, got {list(embedding.shape)}")
    if grid == (side, side):
        return embedding
    prefix, positions = embedding.split([prefix_tokens, patches], dim=1)
    picture = positions.transpose(1, 2).unflatten(2, (side, side))  # (1, D, n, n)
    resized = interpolate(picture, grid, mode="bicubic", align_corners=False)  # (1, D, rows, columns)
    return torch.cat((prefix, resized.flatten(2).transpose(1, 2)), dim=1)
