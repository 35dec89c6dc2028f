"""BiT: pre-activation ResNets with weight-standardised convolutions and group norm, called Big Transfer.

Paper: Kolesnikov, Beyer, Zhai, Puigcerver, Yung, Gelly, Houlsby, "Big Transfer (BiT): General Visual Representation
Learning", ECCV 2020, arXiv 1912.11370. Weight standardisation: Qiao et al., arXiv 1903.10520.

Provenance: the network is timm's ``ResNetV2`` (https://github.com/huggingface/pytorch-image-models, Apache-2.0), which
follows the authors' code (https://github.com/google-research/big_transfer, Copyright 2020 Google LLC, Apache-2.0). This
file adds what checkpoints need: the authors' names, sizes, and the arguments inferred from shapes. The names and the
array layout are facts of the authors' files; no code of theirs is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from timm.layers import StdConv2d
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn

from imagexplain.models.checkpoints import checkpoint

EPS = 1e-10
"""Term added to a filter's variance; timm's own default, 1e-6, is not the authors'."""

BLOCKS = 4
GROUPS = 32
BOTTLENECK = 4
"""Ratio of a unit's width to the width at which it computes."""

AUTHORS_PREFIX = "resnet/"


class Size(NamedTuple):
    """Dimensions of a BiT network.

    Attributes:
        layers: Number of units in each of the four blocks.
        channels: Width of each block.
        stem: Width before the first block.
    """

    layers: tuple[int, ...]
    channels: tuple[int, ...]
    stem: int


def _size(layers: tuple[int, ...], width: int) -> Size:
    return Size(layers, tuple(width * channels for channels in (256, 512, 1024, 2048)), 64 * width)


SIZES = {
    "R50x1": _size((3, 4, 6, 3), 1),
    "R50x3": _size((3, 4, 6, 3), 3),
    "R101x1": _size((3, 4, 23, 3), 1),
    "R101x3": _size((3, 4, 23, 3), 3),
    "R152x2": _size((3, 8, 36, 3), 2),
    "R152x4": _size((3, 8, 36, 3), 4),
}
"""The authors' sizes, the same for BiT-S and BiT-M: ``bit(*SIZES["R50x1"], classes=10)``."""


def bit(layers: tuple[int, ...], channels: tuple[int, ...], stem: int, classes: int) -> nn.Module:
    """Build an untrained network: images (B, 3, H, W) to logits (B, classes).

    Args:
        layers: Number of units in each of the four blocks, each at least 1.
        channels: Width of each block, multiples of 128, so that 32 groups divide the bottleneck too.
        stem: Width before the first block, a multiple of 32.
        classes: Number of logits.

    Raises:
        ValueError: an argument outside these ranges.
    """
    if len(layers) != BLOCKS or min(layers) < 1:
        raise ValueError(f"layers: wanted {BLOCKS} numbers of at least 1, given {tuple(layers)}")
    divisor = GROUPS * BOTTLENECK
    if len(channels) != BLOCKS or any(width < divisor or width % divisor for width in channels):
        raise ValueError(f"channels: wanted {BLOCKS} multiples of {divisor}, given {tuple(channels)}")
    if stem < GROUPS or stem % GROUPS:
        raise ValueError(f"stem: wanted a multiple of {GROUPS}, given {stem}")
    return ResNetV2(
        layers=list(layers),
        channels=tuple(channels),
        stem_chs=stem,
        num_classes=classes,
        stem_type="fixed",
        conv_layer=partial(StdConv2d, eps=EPS),
    )


def build(state: Mapping[str, Tensor]) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``; every argument is inferred from the shapes.

    Args:
        state: Tensors under the names of the authors' PyTorch code (``body.block1.unit01.conv1.weight``) or of their
            ``.npz`` files (``resnet/block1/unit01/a/standardized_conv2d/kernel``).

    Raises:
        CheckpointError: a tensor is missing, unexpected or of a wrong shape.
        ValueError: the shapes are those of no BiT network.
    """
    if any(name.startswith(AUTHORS_PREFIX) for name in state):
        state = from_authors(state)
    stem = checkpoint.shape(state, "root.conv.weight", 4)[0]
    prefixes = [f"body.block{block}." for block in range(1, BLOCKS + 1)]
    layers = tuple(len({name.split(".")[2] for name in state if name.startswith(prefix)}) for prefix in prefixes)
    channels = tuple(checkpoint.shape(state, f"{prefix}unit01.conv3.weight", 4)[0] for prefix in prefixes)
    classes = checkpoint.shape(state, "head.conv.weight", 4)[0]
    with torch.device("meta"):
        model = bit(layers, channels, stem, classes)
    return checkpoint.fill(model, state, original_name)


def export(model: nn.Module) -> dict[str, Tensor]:
    """State dict of a network from :func:`bit`, under the names of the authors' PyTorch code."""
    return checkpoint.exported(model, original_name)


def original_name(name: str) -> str:
    """Translate timm's name of a tensor to that in the authors' PyTorch code; a name of neither stays as it is."""
    if unit := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)", name):
        block, index, rest = int(unit[1]) + 1, int(unit[2]) + 1, unit[3]
        rest = re.sub(r"^norm", "gn", rest).replace("downsample.conv.", "downsample.")
        return f"body.block{block}.unit{index:02d}.{rest}"
    return _renamed(name, {"stem.conv.": "root.conv.", "norm.": "head.gn.", "head.fc.": "head.conv."})


def from_authors(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the arrays of an ``.npz`` file to the state dict of the authors' PyTorch code.

    Kernels are (H, W, in, out) in the file and become (out, in, H, W).
    """
    return {
        _pytorch_name(name): array.permute(3, 2, 0, 1).contiguous() if array.ndim == 4 else array
        for name, array in arrays.items()
    }


def _pytorch_name(name: str) -> str:
    """Rename ``resnet/block1/unit01/a/group_norm/gamma`` to ``body.block1.unit01.gn1.weight``; unknown names stay."""
    path = re.sub(r"/(kernel|gamma)$", "/weight", name)
    path = re.sub(r"/beta$", "/bias", path)
    if unit := re.fullmatch(r"resnet/(block\d+/unit\d+)/([abc])/(proj/standardized_conv2d|\w+)/(\w+)", path):
        layer = {
            "proj/standardized_conv2d": "downsample",
            "standardized_conv2d": f"conv{'_abc'.index(unit[2])}",
            "group_norm": f"gn{'_abc'.index(unit[2])}",
        }.get(unit[3])
        return f"body.{unit[1]}.{layer}.{unit[4]}".replace("/", ".") if layer else name
    outer = {
        "resnet/root_block/standardized_conv2d/": "root.conv.",
        "resnet/group_norm/": "head.gn.",
        "resnet/head/conv2d/": "head.conv.",
    }
    renamed = _renamed(path, outer)
    return name if renamed == path else renamed


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
