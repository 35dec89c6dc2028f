"""The demonstration segmenter's Swin backbone under timm's names: where training the Swin classifier starts from.

The reverse of :mod:`handlers.models.swin_keys`, which says what differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from handlers.models import checkpoint

SEGMENTER = Path(__file__).parents[1] / "archive_specs" / "weights" / "swin_scenes.safetensors"

RENAMED = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.(\d+)\.blocks\.", r"layers.\1.blocks."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
"""Patterns in mmdet's names of the backbone's tensors, and what timm has there."""

DOWNSAMPLING = re.compile(r"^stages\.(\d+)\.downsample\.")


def start(network: nn.Module, stages: int) -> None:
    """Give a Swin of timm the segmenter's first stages; its classifier stays as it is.

    Raises:
        ValueError: a network of other sizes.
    """
    found, own = backbone(checkpoint.read(SEGMENTER), stages), network.state_dict()
    shapes = {name: tensor.shape for name, tensor in own.items() if not name.startswith("head.")}
    if {name: tensor.shape for name, tensor in found.items()} != shapes:
        raise ValueError("network: wanted a Swin of the segmenter's sizes, got another")
    network.load_state_dict(own | found)


def backbone(state: Mapping[str, Tensor], stages: int) -> dict[str, Tensor]:
    """The tensors of the first stages of mmdet's backbone; of the detector's norms behind each stage, the last one."""
    inner = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")}
    found = dict(_converted(name, tensor) for name, tensor in inner.items())
    norm, beyond = f"norm{stages - 1}.", tuple(f"layers.{stage}." for stage in range(stages, 4))
    left_out = re.compile(r"^norm\d\.|relative_position_index$")
    kept = {name: tensor for name, tensor in found.items() if not left_out.search(name)}
    kept |= {name.replace(norm, "norm."): tensor for name, tensor in found.items() if name.startswith(norm)}
    return {name: tensor for name, tensor in kept.items() if not name.startswith(beyond)}


def _converted(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if (match := DOWNSAMPLING.match(name)) is not None:  # at the end of a stage there, at the start of the next here
        moved = f"layers.{int(match[1]) + 1}.downsample.{name[match.end() :]}"
        # (…, channel, row, column), flattened, to (…, column, row, channel), flattened
        return moved, tensor.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3)
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name, tensor
