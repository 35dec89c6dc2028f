"""Groups of parameters, each with its own learning rate and weight decay."""

from __future__ import annotations

from typing import Any

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

FINAL_NORM = "norm."
"""Prefix of the norm between the last block and the classifier, in networks that have one for all tokens."""


def parameter_groups(network: nn.Module, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimiser: ``params``, ``lr_scale``, by which its rate is multiplied, and ``weight_decay``.

    The factor is 1 for the classifier and ``layer_decay`` times that of the next block for every block before it;
    embeddings come before the first. A network that does not tell its blocks, as timm's do, has factor 1 throughout.
    Parameters of one dimension have no weight decay, nor have those that the network itself names.

    They are timm's groups but for one thing: the norm between the last block and the classifier learns at the
    classifier's rate, as in MAE, and not at the last block's.

    Args:
        network: Network whose trainable parameters are grouped.
        layer_decay: Factor from block to block, in (0, 1].
        weight_decay: Weight decay of the parameters that have any.

    Source: ``util/lr_decay.py`` of https://github.com/facebookresearch/mae, after BEiT.
    """
    exempt: set[str] = getattr(network, "no_weight_decay", set)()
    if hasattr(network, "group_matcher"):
        found = param_groups_layer_decay(network, weight_decay, exempt, layer_decay=layer_decay)
    else:
        found = [{**group, "lr_scale": 1.0} for group in param_groups_weight_decay(network, weight_decay)]
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in found:
        for parameter in group["params"]:
            scale = 1.0 if names[id(parameter)].startswith(FINAL_NORM) else group["lr_scale"]
            groups.setdefault((scale, group["weight_decay"]), []).append(parameter)
    return [{"params": each, "lr_scale": scale, "weight_decay": decay} for (scale, decay), each in groups.items()]


def set_rate(groups: list[dict[str, Any]], rate: float) -> None:
    """Give each group its part of a learning rate."""
    for group in groups:
        group["lr"] = rate * group["lr_scale"]
