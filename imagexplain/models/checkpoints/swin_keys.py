"""Translation of the published Swin detection checkpoints to the names and channel order of mmdet 3.

The authors' detectors (https://github.com/SwinTransformer/Swin-Transformer-Object-Detection, Apache-2.0, mmdet 2
with a backbone of their own) and mmdet 3's differ in the backbone's names, and in how a downsampling layer lays out the
four pixels of a 2×2 patch before it reduces them: the authors one pixel after the other, column by column, each with
all its channels; mmdet 3 one channel after the other, each with its four pixels, row by row. Other names are the same.

Provenance: names and orders are facts of the two repositories (mmdet is Apache-2.0; its ``swin_converter`` does this
to a backbone alone); no code of theirs is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

BACKBONE = "backbone."

RENAMED = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.", "stages."),
    (r"\.attn\.", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)
"""Patterns in the authors' names of the backbone's tensors, and what mmdet 3 has there."""

DOWNSAMPLING = re.compile(r"stages\.\d+\.downsample\.(norm|reduction)\.(weight|bias)")


def is_authors(state: Mapping[str, Tensor]) -> bool:
    """Test whether the names are those of the authors' detectors."""
    return any(name.startswith(f"{BACKBONE}layers.") for name in state)


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a detector's state dict to mmdet 3's names and channel order.

    Args:
        state: State dict of an authors' detector, see :func:`is_authors`. Names outside the backbone stay as they are.

    Raises:
        ValueError: a downsampling layer whose channels are not those of four pixels.
    """
    return dict(_converted(name, tensor) for name, tensor in state.items())


def _converted(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if not name.startswith(BACKBONE):
        return name, tensor
    inner = name.removeprefix(BACKBONE)
    for pattern, replacement in RENAMED:
        inner = re.sub(pattern, replacement, inner)
    return BACKBONE + inner, _channels_first(name, tensor) if DOWNSAMPLING.fullmatch(inner) else tensor


def _channels_first(name: str, tensor: Tensor) -> Tensor:
    """Reorder (…, column, row, channel), flattened, to (…, channel, row, column), flattened."""
    channels, rest = divmod(tensor.shape[-1], 4)
    if rest:
        raise ValueError(f"{name}: wanted a multiple of 4 channels, given {list(tensor.shape)}")
    pixels = tensor.unflatten(-1, (2, 2, channels))
    return pixels.transpose(-1, -3).flatten(-3).contiguous()
