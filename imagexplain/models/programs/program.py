"""A saved program as a network like any other."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from imagexplain.errors import ArgumentError


class Program(nn.Module):
    """A saved program as a network: images (B, C, H, W) to what the program returns for them.

    Attributes:
        program: Program itself, with the layers that it shows.
        unseen: Reasons why methods cannot look into it, by what they need of a model, see
            :mod:`imagexplain.attribution.network.visibility`.
        most: Largest number of images that it takes at once; None for any. More are evaluated in turns.
        size: Height and width of the images that it takes; None where it does not say.
        devices: Devices that it names itself, on which alone it runs.
    """

    def __init__(
        self,
        program: nn.Module,
        unseen: Mapping[str, str],
        *,
        quick: nn.Module | None = None,
        most: int | None = None,
        size: tuple[int, int] | None = None,
        devices: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.program = program
        self.unseen = dict(unseen)
        self.most, self.size, self.devices = most, size, devices
        self._quick = (quick,)  # in a tuple, for it is no part of this network
        for module in program.modules():
            module.training = False

    def forward(self, images: Tensor) -> Any:
        """See the base class."""
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            given = f"given {list(images.shape[2:])}"
            raise ArgumentError(
                "preprocess", f"size: wanted {list(self.size)}, for which the program was saved, {given}"
            )
        if self.most is None or len(images) <= self.most:
            return self.program(images)
        return _joined([self.program(part) for part in images.split(self.most)])

    def quick(self) -> Self:
        """The same program as fast as it can be, whose layers need not be seen; its hooks are this one's."""
        (quick,) = self._quick
        if quick is None:
            return self
        other = copy.copy(self)
        other._modules = {"program": quick}
        return other

    def one_by_one(self) -> Self:
        """The same program, asked for one image after the other; its layers would run once for each."""
        self.most = 1
        self.unseen = {"module": ONE_BY_ONE, **self.unseen}
        return self

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the program's modules by their own names, as if they were this one's."""
        for name, module in self.program.named_modules(memo, prefix, remove_duplicate):
            yield name, self if module is self.program else module

    def get_submodule(self, target: str) -> nn.Module:
        """Module of the program by its own name."""
        return self.program.get_submodule(target) if target else self

    def train(self, mode: bool = True) -> Self:
        """Keep the mode in which the program was saved: it is part of what some programs are."""
        return self

    def to(self, *arguments: Any, **options: Any) -> Self:
        """Move the program, but for a memory format: it was saved with the strides that its operations count on."""
        options.pop("memory_format", None)
        return super().to(*arguments, **options) if arguments or options else self


ONE_BY_ONE = "a program that takes one image at once shows no layers; save it for any number of images"


def _joined(parts: list[Any]) -> Any:
    """Outputs for several images from those for parts of them."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple | list):
        return tuple(_joined(list(each)) for each in zip(*parts, strict=True))
    raise ArgumentError("head", f"output: wanted tensors of scores, got a {type(first).__name__}")
