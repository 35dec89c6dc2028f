"""The number of path points to evaluate at once: as many as keep the processor busy and fit the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imagexplain.attribution.paths.path_integral import Forward, score_gradients
from imagexplain.serving.free_memory import free_memory

MAX_CHUNK = 64
"""Path points beyond which a chunk gains nothing: the matrix products are at their full rate."""

CPU_BUDGET = 1024**3
"""Bytes for what a chunk keeps for its backward pass; its temporaries come on top. More gains nothing: the maps of a
large network are past the caches long before."""

FREE_MEMORY_FRACTION = 0.25
"""Part of the free memory, of the host or its container, that a worker may take; the other workers want theirs."""


def chunk_size(network: nn.Module, example: Tensor, forward: Forward | None = None) -> int:
    """The number of path points of ``example``'s shape (1, C, H, W) to evaluate at once, 1 … :data:`MAX_CHUNK`.

    ``forward`` is the function to differentiate, where that is not the whole network.
    """
    per_point = bytes_per_point(network, example, forward)
    if example.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(example.device)
        budget = FREE_MEMORY_FRACTION * free
    else:
        budget = min(CPU_BUDGET, FREE_MEMORY_FRACTION * free_memory())
    return max(1, min(MAX_CHUNK, int(budget // max(per_point, 1))))


def bytes_per_point(network: nn.Module, example: Tensor, forward: Forward | None = None) -> int:
    """Bytes that the backward pass of one path point keeps alive, each storage counted once, weights left out."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def same(saved: Any) -> Any:
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, same):
        score_gradients(forward or network, example, torch.zeros(1, dtype=torch.int64, device=example.device))
    return sum(kept.values())
