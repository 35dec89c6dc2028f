"""A folded LaNet that computes every activation once.

In LaNet each operation applies its own ReLU, so that a cell's output is rectified by both cells that read it, and a
state by each separable convolution on it. Once training is over this can be shared: cells hand each other rectified
outputs, and a cell rectifies each of its states at most once. The function is the same.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlers.models.lanet import Cell, FactorizedReduce, LaNet, ReLUConvBN, SepConv


class FoldedLaNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes).

    Args:
        folded: a LaNet without batch norms, as :func:`handlers.models.fold.fold` leaves it; its layers are shared.
    """

    def __init__(self, folded: LaNet) -> None:
        super().__init__()
        self.stem = folded.stem
        self.cells = nn.ModuleList(FoldedCell(cast(Cell, cell)) for cell in folded.cells)
        self.classifier = folded.classifier

    def forward(self, x: Tensor) -> Tensor:
        before = previous = F.relu(self.stem(x))
        *inner, last = self.cells
        for cell in inner:
            before, previous = previous, RectifiedStack.apply(*cell(before, previous))
        output = torch.cat(last(before, previous), dim=1)  # the classifier reads it unrectified
        return self.classifier(F.adaptive_avg_pool2d(output, 1).flatten(1))


class RectifiedStack(torch.autograd.Function):
    """ReLU of maps stacked along the channels, in one pass over memory each way.

    ``relu(cat(maps))`` writes the stack twice, and its backward pass masks the whole gradient before it is cut into
    strided pieces, which every consumer then has to copy.
    """

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:  # each (N, C_i, H, W)
        ctx.widths = [part.shape[1] for part in maps]
        shape = (len(maps[0]), sum(ctx.widths), *maps[0].shape[2:])
        stack = torch.empty(shape, dtype=maps[0].dtype, device=maps[0].device, memory_format=torch.channels_last)
        for part, place in zip(maps, stack.split(ctx.widths, dim=1), strict=True):
            torch.clamp_min(part, 0, out=place)
        ctx.save_for_backward(stack)
        return stack

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (stack,) = ctx.saved_tensors
        pieces = zip(gradients[0].split(ctx.widths, dim=1), stack.split(ctx.widths, dim=1), strict=True)
        return tuple(torch.ops.aten.threshold_backward(gradient, place, 0) for gradient, place in pieces)


class FoldedCell(nn.Module):
    """A cell whose two inputs come rectified; its outputs, still to be stacked, do not."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.genotype = cell.genotype
        self.adapt = nn.ModuleList([_convolutional(cell.preprocess0), _convolutional(cell.preprocess1)])
        self.operations = nn.ModuleList(_convolutional(operation) for operation in cell._ops)

    def forward(self, before: Tensor, previous: Tensor) -> list[Tensor]:
        states = [self.adapt[0](before), self.adapt[1](previous)]
        rectified: dict[int, Tensor] = {}

        def branch(edge: int, source: int) -> Tensor:
            operation = self.operations[edge]
            if isinstance(operation, nn.MaxPool2d | nn.Identity):
                return cast(Tensor, operation(states[source]))
            if source not in rectified:
                rectified[source] = F.relu(states[source])
            return cast(Tensor, operation(rectified[source]))

        for node, ((_, first), (_, second)) in enumerate(self.genotype.nodes):
            states.append(branch(2 * node, first) + branch(2 * node + 1, second))
        return [states[state] for state in self.genotype.outputs]


class FoldedSepConv(nn.Module):
    """Depthwise, pointwise, ReLU, depthwise, pointwise, on a rectified input."""

    def __init__(self, folded: SepConv) -> None:
        super().__init__()
        convolutions = [layer for layer in folded.op if isinstance(layer, nn.Conv2d)]
        self.first, self.second = nn.Sequential(*convolutions[:2]), nn.Sequential(*convolutions[2:])

    def forward(self, rectified: Tensor) -> Tensor:
        return cast(Tensor, self.second(F.relu(self.first(rectified))))


class FoldedReduce(nn.Module):
    """Two strided 1×1 convolutions, one on the even and one on the odd rows and columns of a rectified input."""

    def __init__(self, folded: FactorizedReduce) -> None:
        super().__init__()
        self.even, self.odd = folded.conv_1, folded.conv_2

    def forward(self, rectified: Tensor) -> Tensor:
        return torch.cat([self.even(rectified), self.odd(rectified[:, :, 1:, 1:])], dim=1)


def _convolutional(operation: nn.Module) -> nn.Module:
    """What is left of a folded operation when its first ReLU has been applied already."""
    match operation:
        case SepConv():
            return FoldedSepConv(operation)
        case FactorizedReduce():
            return FoldedReduce(operation)
        case ReLUConvBN():
            (convolution,) = [layer for layer in operation.op if isinstance(layer, nn.Conv2d)]
            return convolution
        case nn.MaxPool2d() | nn.Identity():
            return operation
    raise TypeError(f"operation: wanted one of LaNet's, got {type(operation).__name__}")
