"""The cost of an explanation: evaluations of the model, forward and backward, and processor time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Cost:
    """The cost of a block.

    Attributes:
        forward: Images that networks evaluated.
        backward: Images whose scores sent gradients back.
        seconds: Processor time.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


@contextmanager
def measure_cost(*networks: nn.Module) -> Iterator[Cost]:
    """Measure a block's cost; each network is called as a whole, (N, C, H, W) to (N, classes)."""
    cost = Cost()

    def back(gradient: Tensor) -> None:
        cost.backward += len(gradient)

    def forth(module: nn.Module, _: object, scores: Tensor) -> None:
        cost.forward += len(scores)
        if scores.requires_grad:
            scores.register_hook(back)

    with ExitStack() as stack:
        for network in networks:
            stack.callback(network.register_forward_hook(forth).remove)
        begin = time.process_time()
        try:
            yield cost
        finally:
            cost.seconds = time.process_time() - begin
