"""What a map costs: rows that the model evaluates, forwards and backwards, and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Cost:
    """What happened within the block.

    Attributes:
        forward: rows that the model evaluated.
        backward: rows of scores from which gradients went back.
        seconds: of processor time.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


@contextmanager
def counted(network: nn.Module) -> Iterator[Cost]:
    """Counts what the network does within the block; it is called as a whole, (N, C, H, W) to (N, classes)."""
    cost = Cost()

    def back(gradient: Tensor) -> None:
        cost.backward += len(gradient)

    def forth(module: nn.Module, _: object, scores: Tensor) -> None:
        cost.forward += len(scores)
        if scores.requires_grad:
            scores.register_hook(back)

    handle = network.register_forward_hook(forth)
    begin = time.process_time()
    try:
        yield cost
    finally:
        cost.seconds = time.process_time() - begin
        handle.remove()
