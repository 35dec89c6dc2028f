"""Features by torchvision's networks: ResNet-101's mean over the whole, a Faster R-CNN's box head for each box.

The original's region features are of another network, fc7 of a Faster R-CNN X-101 of width 2048, trained on Visual
Genome; torchvision's box head has width 1024, so that a published captioner wants its own features, or a detector whose
head has its width.

Source: the networks are torchvision's (https://github.com/pytorch/vision, BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet101
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from imagexplain.models.checkpoints import checkpoint

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of a photo's channels, as torchvision's weights have seen them."""


class TorchvisionFeatures(nn.Module):
    """Features by a ResNet-101 (``image``) and a Faster R-CNN (``regions``), one pass of each."""

    def __init__(self, regions: FasterRCNN, image: ResNet) -> None:
        super().__init__()
        self.regions = regions
        self.image_network = image
        self.region = regions.roi_heads.box_head.fc7.out_features
        self.image = image.fc.in_features

    def forward(self, photos: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        seen = (photos - photos.new_tensor(MEAN).view(3, 1, 1)) / photos.new_tensor(STD).view(3, 1, 1)
        heads: Any = self.regions.roi_heads
        size = photos.shape[2], photos.shape[3]
        pooled = heads.box_roi_pool(self.regions.backbone(seen), [boxes] * len(photos), [size] * len(photos))
        regions = heads.box_head(pooled).unflatten(0, (len(photos), len(boxes)))
        return regions, self._mean_pool(seen)

    def _mean_pool(self, seen: Tensor) -> Tensor:
        """Mean (P, 2048) over the last maps of the ResNet."""
        network: Any = self.image_network
        maps = network.maxpool(network.relu(network.bn1(network.conv1(seen))))
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            maps = layer(maps)
        return maps.mean((2, 3))


def network(region: int = 1024, classes: int = 91, image_classes: int = 1000) -> TorchvisionFeatures:
    """The networks with random weights; ``region`` is the width of the box head."""
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes)
    if region != detector.roi_heads.box_head.fc7.out_features:
        detector.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, region)
        predictor = detector.roi_heads.box_predictor
        predictor.cls_score, predictor.bbox_pred = nn.Linear(region, classes), nn.Linear(region, 4 * classes)
    return TorchvisionFeatures(detector.eval(), resnet101(weights=None, num_classes=image_classes).eval())


def build(state: Mapping[str, Tensor]) -> nn.Module:
    """Build the networks of two checkpoints of torchvision's, ``regions.…`` and ``image.…``, in ``eval()``.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of a wrong shape.
    """
    classes, region = checkpoint.shape(state, "regions.roi_heads.box_predictor.cls_score.weight", 2)
    (image_classes,) = checkpoint.shape(state, "image.fc.bias", 1)
    with torch.device("meta"):
        made = network(region, classes, image_classes)
    return checkpoint.fill(made, state, lambda name: name.replace("image_network.", "image.", 1))
