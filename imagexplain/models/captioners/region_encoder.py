"""Region encoder: a feature for each box of a photo, from a small convolutional network and the box's place and shape.

A box's crop is a square around it, by RoIAlign on the photo itself, so that the feature has a gradient with respect to
every pixel of it. The geometry is this project's addition: the features of the captioner's authors have none, and a
side would have to be told from the crop around two objects.

Source: RoIAlign is that of He et al., "Mask R-CNN", ICCV 2017 (arXiv 1703.06870), in torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from imagexplain.vision.scene_graph import Box

CROP = 32
"""Height and width of a crop, pixels."""

MARGIN = 1.1
"""Side of the square that is cropped, in the longer sides of its box."""

GEOMETRY = 7
"""Number of values that say where a box is: see :func:`geometry`."""


class RegionEncoder(nn.Module):
    """Encoder of boxes: a photo's crops and their geometry to features of mean 0 and variance 1 over the training's.

    Args:
        width: Width of what the network sees in a crop; a feature has the geometry too.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(3, 16, 1),
            *_convolution(16, 32, 2),
            *_convolution(32, 32, 1),
            *_convolution(32, 64, 2),
            *_convolution(64, 64, 1),
            *_convolution(64, 128, 2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.last = nn.Linear(4 * 128, width)
        self.register_buffer("feature_mean", torch.zeros(width + GEOMETRY))
        self.register_buffer("feature_std", torch.ones(width + GEOMETRY))

    @property
    def width(self) -> int:
        """Width of a feature, geometry included."""
        return len(self.feature_mean)

    def forward(self, photo: Tensor, boxes: Tensor) -> Tensor:
        """Encode boxes of one photo.

        Args:
            photo: RGB (3, H, W) of 0 … 1.
            boxes: Boxes (R, 4), left, top, right, bottom in pixels, the ends exclusive.

        Returns:
            Features (R, width).
        """
        return self.encode(crops(photo, boxes), geometry(boxes, (photo.shape[1], photo.shape[2])))

    def encode(self, crops: Tensor, geometry: Tensor) -> Tensor:
        """Features (R, width) of crops (R, 3, 32, 32) and their geometry (R, 7)."""
        return (torch.cat([self.seen(crops), geometry], 1) - self.feature_mean) / self.feature_std

    def seen(self, crops: Tensor) -> Tensor:
        """Sight of crops (R, 3, 32, 32), which is not standardised yet: (R, width without geometry)."""
        seen: Tensor = self.last(self.convolutions(crops * 4 - 2))
        return seen


def crops(photo: Tensor, boxes: Tensor) -> Tensor:
    """Crops (R, 3, 32, 32) of a photo (3, H, W): squares around boxes (R, 4); black beyond the photo's border."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * (MARGIN / 2)
    squares = torch.cat([centres - half, centres + half], 1)
    found: Tensor = roi_align(photo.unsqueeze(0), [squares], CROP, sampling_ratio=-1, aligned=True)
    return found


def geometry(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Geometry (R, 7) of boxes (R, 4) in a photo of a size (H, W).

    Centre from the photo's middle (x, y), width, height, the longer and the shorter of both, and the root of the area,
    all in parts of the photo's longer side.

    Example:
        >>> import torch
        >>> from imagexplain.models.captioners.region_encoder import geometry
        >>> geometry(torch.tensor([[0.0, 0.0, 40.0, 10.0]]), (80, 100)).round(decimals=2)
        tensor([[-0.3000, -0.3500,  0.4000,  0.1000,  0.4000,  0.1000,  0.2000]])
    """
    height, width = size
    longest = max(height, width)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:] - boxes.new_tensor([width, height])) / 2
    root = sides.prod(1, keepdim=True).sqrt()
    return torch.cat([centres, sides, sides.amax(1, keepdim=True), sides.amin(1, keepdim=True), root], 1) / longest


def corners_of(boxes: Sequence[Box]) -> Tensor:
    """Boxes as a tensor (R, 4), left, top, right, bottom."""
    return torch.tensor([box.corners for box in boxes], dtype=torch.float32).view(-1, 4)


def _convolution(channels_in: int, channels: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()
