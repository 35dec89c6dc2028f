"""Features of a photo, of the whole and of boxes, by one network: what a captioner sees.

A checkpoint holds ``regions.…``, and ``image.…`` where the whole has a network of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import region_encoder
from imagexplain.models.captioners.region_encoder import GEOMETRY, RegionEncoder
from imagexplain.models.checkpoints import checkpoint

EXTRACTORS = ("region_encoder", "torchvision")
"""Names of the networks."""


class FeatureExtractor(Protocol):
    """Network that makes features.

    Attributes:
        region: Width of a box's feature.
        image: Width of the whole's.
    """

    region: int
    image: int

    def __call__(self, photos: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Features of photos that differ in their pixels alone.

        Args:
            photos: RGB (P, 3, H, W) of 0 … 1.
            boxes: Boxes (R, 4), left, top, right, bottom in pixels, the ends exclusive.

        Returns:
            Features (P, R, region) of the boxes and (P, image) of the whole photos.
        """
        ...


class EncodedRegions(nn.Module):
    """Features by a region encoder, for which the whole is a box like any other."""

    def __init__(self, regions: RegionEncoder) -> None:
        super().__init__()
        self.regions = regions
        self.region = self.image = regions.width

    def forward(self, photos: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        count, height, width = len(photos), *photos.shape[2:]
        boxes = torch.cat([boxes, boxes.new_tensor([[0, 0, width, height]])])
        crops = region_encoder.crops(photos.flatten(0, 1), boxes)  # (R + 1, P·3, 32, 32): the photos as channels
        crops = crops.unflatten(1, (count, 3)).transpose(0, 1).flatten(0, 1)
        places = region_encoder.geometry(boxes, (height, width)).repeat(count, 1)
        features = self.regions.encode(crops, places).unflatten(0, (count, len(boxes)))
        return features[:, :-1], features[:, -1]


def build(extractor: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Build a :class:`FeatureExtractor` from its tensors, in ``eval()``; dimensions follow from the shapes.

    Raises:
        ArgumentError: an unknown extractor.
        CheckpointError: a tensor is missing, unexpected or of a wrong shape.
    """
    if extractor == "torchvision":
        from imagexplain.models.captioners import torchvision_features  # which takes seconds

        return torchvision_features.build(state)
    if extractor != "region_encoder":
        raise ArgumentError("extractor", f"wanted one of {', '.join(EXTRACTORS)}, got {extractor!r}")
    width = checkpoint.shape(state, "regions.feature_mean", 1)[0] - GEOMETRY
    if width < 1:
        raise checkpoint.CheckpointError(f"regions.feature_mean: wanted more than {GEOMETRY} values")
    with torch.device("meta"):
        network = EncodedRegions(RegionEncoder(width))
    return checkpoint.fill(network, state)
