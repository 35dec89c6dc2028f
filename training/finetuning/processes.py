"""Processes that train one network together, each on its share of every batch, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: Number of this one.
        count: Number of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Flag for the process that writes and prints."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum of each process's values, the same in all of them."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def mean(self, value: Tensor) -> float:
        """Mean of each process's number."""
        return float(self.total(value)) / self.count

    def any(self, flag: bool, device: torch.device) -> bool:
        """Flag that is set where it is set in any process."""
        return bool(self.total(torch.tensor(float(flag), device=device)) > 0) if self.count > 1 else flag

    def from_first(self, work: Callable[[], T]) -> T:
        """Result of work that the first process does, while the others wait for it; raises in all what it raises."""
        if self.count == 1:
            return work()
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told = [work(), None]
            except Exception as error:  # which the others would wait for in vain
                told = [None, error]
        dist.broadcast_object_list(told, src=0)
        result: T
        result, failure = told
        if failure is not None:
            raise failure
        return result

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.count > 1:
            dist.barrier()

    def joint(self, network: nn.Module) -> nn.Module:
        """Network whose gradients are the means over the processes; its weights become those of the first process."""
        if self.count == 1:
            return network
        device = next(network.parameters()).device
        return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def without_sync(self, joint: nn.Module) -> AbstractContextManager[None]:
        """Context in which gradients are accumulated in this process alone."""
        return joint.no_sync() if isinstance(joint, DistributedDataParallel) else nullcontext()

    def share_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's statistics of batch norms."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


ALONE = Processes()


def local_device() -> torch.device:
    """Device of this process: its own GPU where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started beside this one; alone where it did not start it.

    Args:
        device: Device of this process, which decides how they talk: by NCCL between GPUs, by Gloo otherwise.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
