"""Head of TensorMask: from feature maps to class logits, box deltas and masks.

Three towers of 3×3 convolutions, shared by all levels, predict classes, boxes and mask features at every position, for
each of A sizes of windows. The *tensor bipyramid* gives coarse levels fine masks: a level's mask features are brought
to the finest level's resolution, added to the finest ones and mixed by one convolution; a 1×1 convolution then
predicts aligned masks there, and SwapAlign2Nat turns them into the masks of the level's windows.

Source: Chen, Girshick, He, Dollár, "TensorMask: A Foundation for Dense Object Segmentation", ICCV 2019, arXiv
1903.12174, sections 4 and 5. Layer names and constants are those of detectron2's ``projects/TensorMask``
(https://github.com/facebookresearch/detectron2, Apache-2.0); the code is written anew. Aligned masks at the finest
resolution for every window of every level are most of what that implementation computes after the towers, and all but
at most a hundred windows are then dropped; here :meth:`TensorMaskHead.masks` takes the windows that are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.models.segmenters.swap_align2nat import covered, masks_at

_VALUES = 2**21  # of masks read at once; each takes about 40 bytes while it is computed


class Rectangle(NamedTuple):
    """Part of a feature map: rows from ``top`` to before ``bottom``, columns from ``left`` to before ``right``."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, x: Tensor) -> Tensor:
        """Crop (…, H, W) to this rectangle."""
        return x[..., self.top : self.bottom, self.left : self.right]

    def grown(self, margin: int, x: Tensor) -> Rectangle:
        """Grow by so many positions on every side, as far as (…, H, W) has them."""
        height, width = x.shape[-2:]
        return Rectangle(
            max(self.top - margin, 0),
            max(self.left - margin, 0),
            min(self.bottom + margin, height),
            min(self.right + margin, width),
        )

    def relative_to(self, other: Rectangle) -> Rectangle:
        """Shift to count positions from the first one of ``other``."""
        return Rectangle(self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left)


def within(layers: Callable[[Tensor], Tensor], x: Tensor, part: Rectangle, reach: int) -> Tensor:
    """Compute ``part.of(layers(x))`` from the part of x that it depends on.

    Args:
        layers: Convolutions that keep height and width.
        x: Input (B, C, H, W).
        part: Rectangle in which the output is wanted.
        reach: Distance, in positions, to the farthest input that an output depends on.
    """
    seen = part.grown(reach, x)
    # Zeros that the layers put around the crop are wrong inside the map, but spread no further than the margin.
    return part.relative_to(seen).of(layers(seen.of(x)))


class TensorMaskHead(nn.Module):
    """Towers and predictors, the same for all levels.

    Attributes:
        classes: Number of classes, K.
        mask_sizes: Side V of each of the A windows at a position.
        reach: Distance to the farthest input that a class logit or a box delta depends on.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        convs: int,
        towers: tuple[int, int, int],
        mask_sizes: tuple[int, ...],
    ) -> None:
        """Build the head of these dimensions.

        Args:
            channels: Number of channels of the feature maps.
            classes: Number of classes.
            convs: Number of convolutions in each tower.
            towers: Channels of the class, box and mask tower.
            mask_sizes: Side V of each window.
        """
        super().__init__()
        class_channels, box_channels, mask_channels = towers
        self.classes = classes
        self.mask_sizes = mask_sizes
        self.reach = convs + 1
        self.cls_subnet = _tower(channels, class_channels, convs)
        self.cls_score = nn.Conv2d(class_channels, len(mask_sizes) * classes, 3, padding=1)
        self.bbox_subnet = _tower(channels, box_channels, convs)
        self.bbox_pred = nn.Conv2d(box_channels, len(mask_sizes) * 4, 3, padding=1)
        self.mask_subnet = _tower(channels, mask_channels, convs)
        for size in mask_sizes:
            self.add_module(f"mask_pred_{size:02d}", nn.Conv2d(mask_channels, size * size, 1))
        self.mask_fuse = _tower(mask_channels, mask_channels, 1)

    def logits(self, x: Tensor) -> Tensor:
        """Class logits (B, A, K, H, W) of a level's features (B, C, H, W)."""
        return self.cls_score(self.cls_subnet(x)).unflatten(1, (len(self.mask_sizes), self.classes))

    def deltas(self, x: Tensor) -> Tensor:
        """Box deltas (B, A, 4, H, W), see :func:`imagexplain.models.segmenters.tensormask.decoded`."""
        return self.bbox_pred(self.bbox_subnet(x)).unflatten(1, (len(self.mask_sizes), 4))

    def fused(self, finest: Tensor, coarse: Tensor, level: int, part: Rectangle | None = None) -> Tensor:
        """Fuse a level's mask features with the finest ones, at the finest resolution.

        Args:
            finest: Outputs of ``mask_subnet`` for level 0, (B, C, H, W).
            coarse: Outputs of ``mask_subnet`` for the level.
            level: Index of the level; 0 is the finest.
            part: Rectangle in which the result is wanted; default: everywhere.
        """
        if level:
            coarse = F.interpolate(coarse, scale_factor=2**level, mode="bilinear", align_corners=False)
        height, width = finest.shape[-2:]
        summed = coarse[..., :height, :width] + finest
        return within(self.mask_fuse, summed, part or Rectangle(0, 0, height, width), reach=1)

    def masks(self, features: Sequence[Tensor], anchors: Tensor) -> list[Tensor]:
        """Masks of some windows.

        Args:
            features: Feature maps of all levels, each (B, C, H, W).
            anchors: Windows (N, 5), int64: picture, level, row, column, index of the window's size.

        Returns:
            N logits (S, S), S = 2^level · V.
        """
        if not len(anchors):
            return []
        masks: dict[int, Tensor] = {}
        finest = self.mask_subnet(features[0])
        for level in anchors[:, 1].unique().tolist():
            coarse = self.mask_subnet(features[level]) if level else finest
            of_level = anchors[:, 1] == level
            locations = anchors[:, (0, 2, 3)]
            shape = (finest.shape[2], finest.shape[3])
            part = Rectangle(*covered(2**level, max(self.mask_sizes), locations[of_level], shape))
            fused = self.fused(finest, coarse, level, part)
            for index in anchors[of_level, 4].unique().tolist():
                size = self.mask_sizes[index]
                aligned = self.get_submodule(f"mask_pred_{size:02d}")(fused)
                chosen = (of_level & (anchors[:, 4] == index)).nonzero()[:, 0]
                for some in chosen.split(max(_VALUES // (size << level) ** 2, 1)):
                    found = masks_at(aligned, 2**level, locations[some], (part.top, part.left))
                    masks |= zip(some.tolist(), found, strict=True)
        return [masks[which] for which in range(len(anchors))]


def _tower(channels_in: int, channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for conv in range(convs):
        layers += [nn.Conv2d(channels if conv else channels_in, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
