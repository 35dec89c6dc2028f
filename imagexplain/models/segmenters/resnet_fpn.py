"""A ResNet with a feature pyramid on top: pictures to six feature maps, from stride 4 to stride 128.

Papers: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385; Lin et al.,
"Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv 1612.03144; the two levels above the pyramid are those
of RetinaNet: Lin et al., ICCV 2017, arXiv 1708.02002.

Provenance: what detectron2 (https://github.com/facebookresearch/detectron2, Apache-2.0) builds for a ResNet-50 with the
authors' original weights: the stride of a stage lies in its first 1×1 convolution, batch norm is frozen, the pyramid
averages where Lin et al. add. The code here is written anew on torch and torchvision; the names of the state dict are
detectron2's, from ``bottom_up.stem.conv1.weight`` to ``top_block.p7.bias``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

STAGES = ("res2", "res3", "res4", "res5")

LEVELS = ("p2", "p3", "p4", "p5", "p6", "p7")

STRIDES = (4, 8, 16, 32, 64, 128)
"""Strides in pixels per position, for each of :data:`LEVELS`."""

DIVISOR = 32
"""Divisor of a picture's height and width: the stride of the last stage."""

Norm = Callable[[int], nn.Module]
"""Function from a number of channels to a batch norm, frozen or not."""


class Stage(NamedTuple):
    """Dimensions of one stage of the ResNet.

    Attributes:
        blocks: Number of residual blocks.
        bottleneck: Channels of a block's 3×3 convolution.
        channels: Channels of a block's output.
    """

    blocks: int
    bottleneck: int
    channels: int


RESNET50 = (Stage(3, 64, 256), Stage(4, 128, 512), Stage(6, 256, 1024), Stage(3, 512, 2048))


class NormedConv2d(nn.Conv2d):
    """A convolution without bias, then a batch norm under the name ``norm``.

    Unless the norm is in training, it is an affine map per channel and goes into the filters: one pass over the output
    instead of three.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, norm: Norm) -> None:
        super().__init__(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        norm = cast(nn.BatchNorm2d, self.norm)  # the frozen one has the same tensors
        if isinstance(norm, nn.BatchNorm2d) and norm.training:
            return norm(super().forward(x))
        scale = norm.weight * (cast(Tensor, norm.running_var) + norm.eps).rsqrt()
        shift = norm.bias - cast(Tensor, norm.running_mean) * scale
        return self._conv_forward(x, self.weight * scale[:, None, None, None], shift)


class Bottleneck(nn.Module):
    """A residual block: 1×1 (with the stride), 3×3 and 1×1 convolution, beside a shortcut."""

    def __init__(self, channels_in: int, stage: Stage, stride: int, norm: Norm) -> None:
        super().__init__()
        projected = channels_in != stage.channels or stride != 1
        self.shortcut = NormedConv2d(channels_in, stage.channels, 1, stride, norm) if projected else None
        self.conv1 = NormedConv2d(channels_in, stage.bottleneck, 1, stride, norm)
        self.conv2 = NormedConv2d(stage.bottleneck, stage.bottleneck, 3, 1, norm)
        self.conv3 = NormedConv2d(stage.bottleneck, stage.channels, 1, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(_relu(self.conv2(_relu(self.conv1(x)))))
        return _relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Stem(nn.Module):
    """Stem of a 7×7 convolution and max-pool: (B, 3, H, W) to (B, C, H / 4, W / 4)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = NormedConv2d(3, channels, 7, 2, norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(_relu(self.conv1(x)), 3, stride=2, padding=1)


class ResNet(nn.Module):
    """ResNet from (B, 3, H, W) to the outputs of the four stages, at strides 4, 8, 16 and 32."""

    def __init__(self, stem: int, stages: tuple[Stage, ...], norm: Norm) -> None:
        super().__init__()
        self.stem = Stem(stem, norm)
        channels = stem
        for name, stage in zip(STAGES, stages, strict=True):
            blocks = []
            for block in range(stage.blocks):
                stride = 2 if block == 0 and name != STAGES[0] else 1
                blocks.append(Bottleneck(channels, stage, stride, norm))
                channels = stage.channels
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = []
        for name in STAGES:
            x = self.get_submodule(name)(x)
            outputs.append(x)
        return outputs


class TopBlock(nn.Module):
    """Two levels above the pyramid, each of half the resolution below it (rounded up)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p6 = self.p6(x)
        return p6, self.p7(F.relu(p6))


class FeaturePyramid(nn.Module):
    """ResNet and pyramid: (B, 3, H, W), H and W multiples of :data:`DIVISOR`, to the maps of :data:`LEVELS`."""

    def __init__(self, stem: int, stages: tuple[Stage, ...], channels: int, norm: Norm = FrozenBatchNorm2d) -> None:
        super().__init__()
        for level, stage in zip(LEVELS, stages, strict=False):
            self.add_module(f"fpn_lateral{level[1:]}", nn.Conv2d(stage.channels, channels, 1))
            self.add_module(f"fpn_output{level[1:]}", nn.Conv2d(channels, channels, 3, padding=1))
        self.top_block = TopBlock(stages[-1].channels, channels)
        self.bottom_up = ResNet(stem, stages, norm)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.levels(images, range(len(LEVELS)))
        return tuple(features[level] for level in range(len(LEVELS)))

    def levels(self, images: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """Maps of some levels (0 is stride 4), without the convolutions that only others need."""
        stages = self.bottom_up(images.contiguous(memory_format=torch.channels_last))
        features: dict[int, Tensor] = {}
        above: Tensor | None = None
        for level in reversed(range(min(wanted), len(STAGES))):
            lateral = self.get_submodule(f"fpn_lateral{level + 2}")(stages[level])
            above = lateral if above is None else (lateral + F.interpolate(above, scale_factor=2, mode="nearest")) / 2
            if level in wanted:
                features[level] = self.get_submodule(f"fpn_output{level + 2}")(above)
        if max(wanted) >= len(STAGES):
            features |= dict(enumerate(self.top_block(stages[-1]), start=len(STAGES)))
        return features


def padded(images: Tensor) -> Tensor:
    """Pad images with zeros below and to the right, up to the next multiples of :data:`DIVISOR`."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % DIVISOR, 0, -height % DIVISOR)) if height % DIVISOR or width % DIVISOR else images


def _relu(x: Tensor) -> Tensor:
    """Rectify in place: only what a convolution or a sum has just made, whose own backward does not read it."""
    return F.relu(x, inplace=True)
