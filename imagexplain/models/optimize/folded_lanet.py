"""A folded LaNet that computes every activation once.

In LaNet each operation applies its own ReLU, so that a cell's output is rectified by both cells that read it, and a
state by each separable convolution on it. Once training is over this can be shared: cells hand on rectified outputs,
and a cell rectifies each of its states at most once. Nor need the widest maps of the network, the cells' outputs, be
read twice: the 1×1 convolutions with which the next two cells begin become one. The function is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.models.classifiers.lanet import Cell, FactorizedReduce, LaNet, ReLUConvBN, SepConv


class FoldedLaNet(nn.Module):
    """Folded LaNet: images (N, 3, H, W) to logits (N, classes).

    Args:
        folded: LaNet without batch norms, as :func:`imagexplain.models.optimize.folding.fold` leaves it; its layers are
            shared.
    """

    def __init__(self, folded: LaNet) -> None:
        super().__init__()
        cells = [cast(Cell, cell) for cell in folded.cells]
        self.stem = folded.stem
        # A cell begins by adapting the older and the newer of the last two outputs to its own width.
        older = [_convolutional(cell.preprocess0) for cell in cells]
        newer = [_convolutional(cell.preprocess1) for cell in cells]
        self.stem_readers = SharedInput(older[0], newer[0], older[1])
        self.cells = nn.ModuleList(FoldedCell(cell) for cell in cells)
        self.readers = nn.ModuleList(SharedInput(*pair) for pair in zip(newer[1:-1], older[2:], strict=True))
        self.last_reader = newer[-1]
        self.classifier = folded.classifier

    def forward(self, x: Tensor) -> Tensor:
        older, newer, next_older = self.stem_readers(F.relu(self.stem(x)))
        *inner, before_last, last = self.cells
        for cell, readers in zip(inner, self.readers, strict=True):
            output = RectifiedStack.apply(*cell(older, newer))
            older, (newer, next_older) = next_older, readers(output)
        output = RectifiedStack.apply(*before_last(older, newer))
        output = torch.cat(last(next_older, self.last_reader(output)), dim=1)  # the classifier reads it unrectified
        return self.classifier(F.adaptive_avg_pool2d(output, 1).flatten(1))


class SharedInput(nn.Module):
    """Operations on one input, one output each: first the 1×1 convolutions, which are done as one, then the others.

    The backward pass of one convolution sums the gradients for the input, which is wide here, as it goes.
    """

    def __init__(self, *operations: nn.Module) -> None:
        super().__init__()
        convolutions = [operation for operation in operations if isinstance(operation, nn.Conv2d)]
        self.widths = [convolution.out_channels for convolution in convolutions]
        self.together = _pointwise(convolutions)
        self.others = nn.ModuleList(operation for operation in operations if operation not in convolutions)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (*self.together(x).split(self.widths, dim=1), *(operation(x) for operation in self.others))


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
    """Graph of a cell, from its first two states to the states that it hands on, still to be rectified and stacked."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.genotype = cell.genotype
        self.operations = nn.ModuleList(_convolutional(operation) for operation in cell._ops)

    def forward(self, older: Tensor, newer: Tensor) -> list[Tensor]:
        states = [older, newer]
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
    """Folded separable convolution: depthwise, pointwise, ReLU, depthwise, pointwise, on a rectified input."""

    def __init__(self, folded: SepConv) -> None:
        super().__init__()
        convolutions = [layer for layer in folded.op if isinstance(layer, nn.Conv2d)]
        self.first, self.second = nn.Sequential(*convolutions[:2]), nn.Sequential(*convolutions[2:])

    def forward(self, rectified: Tensor) -> Tensor:
        return cast(Tensor, self.second(F.relu(self.first(rectified))))


class FoldedReduce(nn.Module):
    """Folded reduction: two 1×1 convolutions, of the even and of the odd rows and columns of a rectified input."""

    def __init__(self, folded: FactorizedReduce) -> None:
        super().__init__()
        self.even, self.odd = _pointwise([folded.conv_1]), _pointwise([folded.conv_2])

    def forward(self, rectified: Tensor) -> Tensor:
        even, odd = EvenAndOdd.apply(rectified)
        return torch.cat([self.even(even), self.odd(odd)], dim=1)


class EvenAndOdd(torch.autograd.Function):
    """Pixels of even row and column of a map, (N, C, H / 2, W / 2), and those of odd row and column.

    The backward pass writes the gradient once; that of two slices writes it four times, mostly zeros.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W)
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        return even.contiguous(memory_format=torch.channels_last), odd.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        even, odd = gradients
        count, channels, height, width = even.shape
        gradient = torch.empty(
            (count, channels, 2 * height, 2 * width),
            dtype=even.dtype,
            device=even.device,
            memory_format=torch.channels_last,
        )
        gradient[:, :, ::2, ::2] = even
        gradient[:, :, 1::2, 1::2] = odd
        gradient[:, :, ::2, 1::2] = 0
        gradient[:, :, 1::2, ::2] = 0
        return gradient


def _convolutional(operation: nn.Module) -> nn.Module:
    """Remainder of a folded operation when its first ReLU has been applied already."""
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


def _pointwise(convolutions: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One 1×1 convolution, without a stride, whose output is those of several, stacked along the channels."""
    first = convolutions[0]
    with torch.device("meta"):
        joined = nn.Conv2d(first.in_channels, sum(layer.out_channels for layer in convolutions), 1)
    joined.weight = nn.Parameter(torch.cat([layer.weight for layer in convolutions]))
    joined.bias = nn.Parameter(torch.cat([cast(Tensor, layer.bias) for layer in convolutions]))
    return joined
