"""LaNet: a convolutional network whose repeated cell was found by architecture search.

Paper: Wang, Xie, Li, Fonseca, Tian, "Sample-Efficient Neural Architecture Search by Learning Action Space", 2019, arXiv
1906.06832. The network around the cell is that of DARTS: Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055. Weight
standardisation: Qiao et al., arXiv 1903.10520.

Provenance: no library has it. The architecture is ``NetworkCIFAR`` of https://github.com/facebookresearch/LaMCTS
(LaNAS/LaNet, CC-BY-NC-4.0), itself after https://github.com/quark0/darts (Apache-2.0); the code here is written anew
and keeps only what a checkpoint fixes: shapes, constants, and the names of its state dict, ``_ops`` included. A
checkpoint that upstream publishes stays under upstream's licence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.models.checkpoints import checkpoint

SEARCHED_CELL = (2, 2, 0, 2, 1, 2, 0, 2, 2, 3, 2, 1, 2, 0, 0, 1, 1, 1, 2, 1, 1, 0, 3, 4, 3, 0, 3, 1)
"""The published cell: two operations per node, then two inputs per node."""

OPERATIONS = ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "sep_conv_5x5")

STEM_MULTIPLIER = 3


@dataclass(frozen=True)
class Genotype:
    """Graph of a cell. State 0 is the output of the cell before the previous one, state 1 of the previous one.

    Attributes:
        nodes: Pairs, two per node, of an operation and the index of the state it is applied to; their sum is the next
            state.
        outputs: States that no node uses; the cell returns them stacked along the channels.
    """

    nodes: tuple[tuple[tuple[str, int], tuple[str, int]], ...]
    outputs: tuple[int, ...]


def decode(cell: Sequence[int]) -> Genotype:
    """Read the list of a cell: for n nodes, 2n indices of :data:`OPERATIONS`, then 2n indices of states.

    Raises:
        ValueError: the list has no such form, or a node uses a state that does not exist yet.
    """
    if not cell or len(cell) % 4:
        raise ValueError(f"cell: wanted four numbers per node, given {len(cell)} numbers")
    operations, sources = cell[: len(cell) // 2], cell[len(cell) // 2 :]
    if not set(operations) <= set(range(len(OPERATIONS))):
        raise ValueError(f"cell: wanted operations from 0 to {len(OPERATIONS) - 1}, given {tuple(operations)}")
    for edge, source in enumerate(sources):
        if not 0 <= source < edge // 2 + 2:
            raise ValueError(f"cell: node {edge // 2} wants a state from 0 to {edge // 2 + 1}, given {source}")
    edges = [(OPERATIONS[operation], source) for operation, source in zip(operations, sources, strict=True)]
    nodes = tuple(zip(edges[::2], edges[1::2], strict=True))
    return Genotype(nodes, tuple(state for state in range(2, len(nodes) + 2) if state not in sources))


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters are used with mean 0 and (unbiased) standard deviation 1.

    Attributes:
        eps: Term added to a filter's standard deviation, not to its variance.
    """

    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, standardised(self.weight, self.eps), self.bias)


def standardised(weight: Tensor, eps: float) -> Tensor:
    """Standardise filters (out, in, H, W): each less its mean, by its unbiased standard deviation plus ``eps``."""
    # In this order float32 rounds as upstream did; another order moves a ReLU's kink on one path point in fifty.
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    return centred / (centred.std((1, 2, 3), keepdim=True) + eps)


class ReLUConvBN(nn.Module):
    """ReLU, 1×1 convolution, batch norm: brings a cell's input to the cell's width."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(), StandardisedConv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class SepConv(nn.Module):
    """Separable convolution, twice: ReLU, one filter per channel (k×k, first with the stride), 1×1, batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(*self._half(channels, kernel, stride), *self._half(channels, kernel, 1))

    @staticmethod
    def _half(channels: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
        return (
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=False),
            StandardisedConv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class FactorizedReduce(nn.Module):
    """Reduction of height and width by half, both even, without dropping three quarters of the positions.

    Half of the channels look at the even rows and columns, the other half at the odd ones.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_1 = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """Build one of :data:`OPERATIONS`, (B, C, H, W) to (B, C, H / stride, W / stride)."""
    match name:
        case "sep_conv_3x3":
            return SepConv(channels, 3, stride)
        case "sep_conv_5x5":
            return SepConv(channels, 5, stride)
        case "max_pool_3x3":
            return nn.MaxPool2d(3, stride, padding=1)
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    raise ValueError(f"operation: wanted one of {', '.join(OPERATIONS)}, given {name}")


class Cell(nn.Module):
    """One cell: a small graph of operations on the outputs of the two cells before it.

    A reduction cell halves height and width: the operations on its two inputs have stride 2.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels_in: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        # After a reduction cell the older input is still twice as high and wide.
        adapt = FactorizedReduce if reduction_before else ReLUConvBN
        self.preprocess0 = adapt(channels_in[0], channels)
        self.preprocess1 = ReLUConvBN(channels_in[1], channels)
        self.genotype = genotype
        self._ops = nn.ModuleList(
            operation(name, channels, stride=2 if reduction and source < 2 else 1)
            for name, source in chain.from_iterable(genotype.nodes)
        )

    def forward(self, before: Tensor, previous: Tensor, drop_path_prob: float) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(previous)]
        for node, ((_, first), (_, second)) in enumerate(self.genotype.nodes):
            branches = [
                self._branch(2 * node, states[first], drop_path_prob),
                self._branch(2 * node + 1, states[second], drop_path_prob),
            ]
            states.append(branches[0] + branches[1])
        return torch.cat([states[state] for state in self.genotype.outputs], dim=1)

    def _branch(self, edge: int, x: Tensor, drop_path_prob: float) -> Tensor:
        op = self._ops[edge]
        y = op(x)
        return y if isinstance(op, nn.Identity) else drop_path(y, drop_path_prob if self.training else 0.0)


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zero whole images of a batch (B, C, H, W) with this probability; scale the others to keep the mean."""
    if probability == 0:
        return x
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= probability
    return x * (kept / (1 - probability)).to(x.dtype)


class AuxiliaryHead(nn.Module):
    """A second classifier in the middle of the network, for its gradient in training; (B, C, 8, 8) to (B, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class LaNet(nn.Module):
    """Network of a stem, ``layers`` cells with a reduction at one third and at two thirds, and a linear classifier.

    Images are (B, 3, H, W), H and W multiples of 4 (32 with the auxiliary head in training). In ``eval()`` it returns
    logits (B, classes); in training the pair (logits, auxiliary logits or None).

    Attributes:
        drop_path_prob: Probability with which training drops a branch, in [0, 1); usually raised from epoch to epoch.
    """

    def __init__(
        self,
        channels: int,
        layers: int,
        classes: int,
        auxiliary: bool = False,
        cell: Sequence[int] = SEARCHED_CELL,
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels: wanted an even number of at least 2, given {channels}")
        if layers < 3:
            raise ValueError(f"layers: wanted at least 3, given {layers}")
        genotype = decode(cell)
        reductions = (layers // 3, 2 * layers // 3)
        self.drop_path_prob = 0.0
        self.auxiliary_layer = reductions[1]

        width = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        widths = [width, width]
        self.cells = nn.ModuleList()
        for layer in range(layers):
            channels *= 2 if layer in reductions else 1
            inputs = (widths[-2], widths[-1])
            self.cells.append(Cell(genotype, inputs, channels, layer in reductions, layer - 1 in reductions))
            widths.append(len(genotype.outputs) * channels)
        self.auxiliary_head = AuxiliaryHead(widths[self.auxiliary_layer + 2], classes) if auxiliary else None
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        before = previous = self.stem(x)
        auxiliary = None
        for layer, cell in enumerate(self.cells):
            before, previous = previous, cell(before, previous, self.drop_path_prob)
            if self.training and self.auxiliary_head is not None and layer == self.auxiliary_layer:
                auxiliary = self.auxiliary_head(previous)
        logits = self.classifier(F.adaptive_avg_pool2d(previous, 1).flatten(1))
        return (logits, auxiliary) if self.training else logits


def build(state: Mapping[str, Tensor], cell: Sequence[int] = SEARCHED_CELL) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``; all but the cell is inferred from names and shapes.

    The auxiliary head is built where the checkpoint has one, so that its tensors are accounted for; in ``eval()`` it is
    not evaluated.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of a wrong shape.
        ValueError: the shapes are those of no LaNet.
    """
    channels = checkpoint.shape(state, "stem.0.weight", 4)[0] // STEM_MULTIPLIER
    layers = len({name.split(".")[1] for name in state if name.startswith("cells.")})
    classes = checkpoint.shape(state, "classifier.weight", 2)[0]
    auxiliary = any(name.startswith("auxiliary_head.") for name in state)
    with torch.device("meta"):
        model = LaNet(channels, layers, classes, auxiliary, cell)
    return checkpoint.fill(model, state)


def export(model: nn.Module) -> dict[str, Tensor]:
    """State dict of a :class:`LaNet`, under upstream's names."""
    return checkpoint.exported(model)
