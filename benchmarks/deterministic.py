"""Weights without a checkpoint: every tensor is a function of its own name.

Implementations that share a state dict's names thereby share its weights; the reference tensors were made with these.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path

import torch
from torch import Tensor

from imagexplain.models.captioners.captioner import END
from imagexplain.models.captioners.graph_encoder import order_table

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
"""Key lists of the upstream implementations, and what they computed."""


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of a name: He-scaled noise for filters, noise around 1 or 0 for what has at most one dimension."""
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if kind == "running_var":
        return 0.5 + torch.rand(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    if kind in ("running_mean", "relative_position_bias_table"):
        return 0.1 * noise
    if len(shape) > 1:
        return noise * sqrt(2 / prod(shape[1:]))
    return 0.05 * noise if kind == "bias" else 1 + 0.1 * noise


def state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict for these names and shapes."""
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The state dict of a key list: name to shape, in upstream's order."""
    entries = json.loads((FIXTURES / name).read_text())
    return {key: tuple(shape) for key, shape, _ in entries}


def reference_tensormask() -> dict[str, Tensor]:
    """The tensors with which TensorMask's reference was made."""
    filled = state(shapes("tensormask/keys.json"))
    for pattern, factor in json.loads((FIXTURES / "tensormask/det_scales.json").read_text()):
        for name in filter(re.compile(pattern).search, filled):
            filled[name] *= factor
    filled["head.cls_score.bias"] -= 4
    return filled


def reference_cascade() -> dict[str, Tensor]:
    """The 337 tensors with which the reference of mmdet's Cascade Mask R-CNN was made."""
    scales = json.loads((FIXTURES / "swin/det_scales.json").read_text())
    filled = mmdet_state(shapes("swin/mmdet3_keys.json"), window=7)
    for name in filled:
        for pattern, scale in scales:
            if re.search(pattern, name):
                filled[name] = filled[name] * scale
    return filled


def reference_captioner() -> dict[str, Tensor]:
    """The tensors with which the reference of the captioner at full size was made, by ``submodule.name``."""
    keys = json.loads((FIXTURES / "ega/keys.json").read_text())["state_dict"]
    scales = json.loads((FIXTURES / "ega/det_scales.json").read_text())["full"]
    filled = state({f"{part}.{name}": tuple(shape) for part, entries in keys.items() for name, shape, _ in entries})
    for pattern, factor in scales["scales"]:
        for name in filter(re.compile(pattern).search, filled):
            filled[name] *= factor
    filled["decoder.embedding.we.weight"][END] *= scales["row_factor"][f"decoder.embedding.we.weight[{END}]"]
    table = "attn_encoder.attr_order_embeds"
    filled[table] = order_table(*filled[table].shape)
    return filled


def mmdet_state(wanted: dict[str, tuple[int, ...]], window: int) -> dict[str, Tensor]:
    """A state dict of an mmdet model with a Swin backbone, whose windows are so many pixels wide."""
    return {
        name: _relative_positions(window) if name.endswith("relative_position_index") else tensor(name, shape)
        for name, shape in wanted.items()
    }


def _relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of a window's pixels: Swin's numbering of (2w − 1)² differences."""
    pixels = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    rows, columns = (pixels[:, None] - pixels[None] + window - 1).unbind(-1)
    return rows * (2 * window - 1) + columns
