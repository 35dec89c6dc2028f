"""Sizes of the maps that layers meet, seen in a forward pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def map_sizes(network: nn.Module, example: Tensor, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Height and width (H, W) of the maps that each layer of these names meets, where they are of one size.

    Args:
        network: Network in ``eval()``.
        example: Input (1, C, H, W).
        names: Names of layers that take a map (N, C, H, W).
    """
    sizes: dict[str, set[tuple[int, int]]] = {}

    def record(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            sizes.setdefault(name, set()).add((arguments[0].shape[2], arguments[0].shape[3]))

        return network.get_submodule(name).register_forward_pre_hook(hook)

    handles = [record(name) for name in names]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: found.pop() for name, found in sizes.items() if len(found) == 1}
