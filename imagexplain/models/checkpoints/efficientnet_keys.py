"""Translation of EfficientNet-PyTorch's checkpoints to timm's names.

EfficientNet-PyTorch (https://github.com/lukemelas/EfficientNet-PyTorch, Apache-2.0) and the packages that follow it
count a network's blocks through, where timm counts them within their stage; and they name a block's layers by what
comes first and second, where timm names them by kind. The tensors are the same.

Provenance: the names are facts of the two libraries; no code of theirs is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
"""Names of the layers outside the blocks, and timm's."""

INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Names of the layers of a block that expands its channels first, and timm's."""

SEPARABLE = INVERTED | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The same for a block that does not expand them, which timm takes for another kind."""

BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.")


def is_efficientnet_pytorch(state: Mapping[str, Tensor]) -> bool:
    """Test whether the names are those of EfficientNet-PyTorch."""
    return "_conv_stem.weight" in state


def from_efficientnet_pytorch(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Translate a state dict to timm's names.

    Args:
        state: State dict of EfficientNet-PyTorch. Other names stay as they are, to be told as unexpected.
        names: Names of timm's network, which say how many blocks a stage has.
    """
    found = {(int(match[1]), int(match[2])) for name in names if (match := TIMM_BLOCK.match(name))}
    places = [f"blocks.{stage}.{block}" for stage, block in sorted(found)]
    expanded = {match[1] for name in state if (match := BLOCK.fullmatch(name)) and match[2] == "_expand_conv"}

    def translated(name: str) -> str:
        layer, _, rest = name.partition(".")
        if layer in OUTSIDE:
            return f"{OUTSIDE[layer]}.{rest}"
        match = BLOCK.fullmatch(name)
        if match is None or int(match[1]) >= len(places):
            return name
        kind = INVERTED if match[1] in expanded else SEPARABLE
        return f"{places[int(match[1])]}.{kind[match[2]]}.{match[3]}" if match[2] in kind else name

    return {translated(name): tensor for name, tensor in state.items()}
