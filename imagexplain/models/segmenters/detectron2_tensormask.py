"""TensorMask as detectron2 has it: an adapter over its ``projects/TensorMask``, where that is installed.

Takes and returns what :mod:`imagexplain.models.segmenters.tensormask` does, for comparison and for those who want the
original. Everything is computed by upstream's network, with one exception: on the CPU, for which upstream has no
SwapAlign2Nat, its layers of that name use :func:`imagexplain.models.segmenters.swap_align2nat.swap_align2nat`. Upstream
makes the masks of all windows and then drops most; ours makes those that are kept.

Provenance: https://github.com/facebookresearch/detectron2 (Apache-2.0), imported and not copied; names of its
configuration and of its network's parts are facts of version 0.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.segmenters.resnet_fpn import LEVELS, RESNET50, STAGES, STRIDES, Stage, padded
from imagexplain.models.segmenters.swap_align2nat import swap_align2nat
from imagexplain.models.segmenters.tensormask import (
    DELTA_WEIGHTS,
    TensorMaskSettings,
    TensorMaskSize,
    size_of,
    without_constants,
)
from imagexplain.vision.detections import Detections
from imagexplain.vision.mask_crops import crop_to_content

DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
"""Blocks per stage of the ResNets that upstream has, among those of bottlenecks, and their names."""


def build(state: Mapping[str, Tensor], settings: TensorMaskSettings | None = None) -> nn.Module:
    """Build upstream's network of a checkpoint, in ``eval()``, frozen.

    Args:
        state: Tensors under detectron2's names.
        settings: Settings of the network; those of the 6× configuration by default.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of a wrong shape, or contradicts the settings; or upstream
            has no such network.
        ImportError: detectron2 or its TensorMask is not installed.
        ValueError: two windows of the settings are the same box.
    """
    settings = settings or TensorMaskSettings()
    sizes = [size for level in settings.anchor_sizes for size in level]
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"mask_sizes: wanted none that is 2, 4, … times another, given {settings.mask_sizes}")
    weights = without_constants(state, settings)
    network = _network(size_of(weights, len(settings.mask_sizes)), settings)
    checkpoint.fill(network, weights)
    return network.requires_grad_(False)


@torch.no_grad()
def detect(network: Any, image: Tensor, size: tuple[int, int], threshold: float) -> Detections:
    """Detect the instances in a photo: see :func:`imagexplain.models.segmenters.tensormask.detect`.

    Args:
        network: Network from :func:`build`.
        image: Normalised image (1, 3, H, W).
        size: Height and width of the photo, in which boxes and masks are wanted.
        threshold: Probability that every detection exceeds.
    """
    from detectron2.structures import ImageList
    from tensormask.arch import _postprocess

    features = _features(network, image)
    logits, deltas, masks = network.head(features)
    anchors, _, indexes = network.anchor_generator(features)
    network.score_threshold = threshold  # upstream takes it from here only
    images = ImageList(padded(image), [(image.shape[2], image.shape[3])])
    ((result, (masks, windows)),) = network.inference(logits, deltas, masks, anchors, indexes, images)
    result.anchors = _identities(windows.tensor, network.settings)
    # Upstream cannot paste a window that lies in the padding; an empty mask in the photo is what it amounts to.
    aside = ((windows.tensor[:, 0] >= image.shape[3]) | (windows.tensor[:, 1] >= image.shape[2])).nonzero()[:, 0]
    windows.tensor[aside] = windows.tensor.new_tensor([0, 0, image.shape[3], image.shape[2]])
    for index in aside.tolist():
        masks[index] = torch.zeros_like(masks[index])
    found = _postprocess(result, (masks, windows), *size)
    pasted = found.pred_masks.bool().cpu().numpy() if found.has("pred_masks") else ()
    found = found.to("cpu")
    cut_outs = tuple(map(crop_to_content, pasted))
    return Detections(found.pred_boxes.tensor, found.scores, found.pred_classes, cut_outs, size, found.anchors)


def class_logits_at(network: Any, images: Tensor, anchor: tuple[int, int, int, int]) -> Tensor:
    """Class logits (B, K) of one window, differentiable.

    See :func:`imagexplain.models.segmenters.tensormask.class_logits_at`.

    Args:
        network: Network from :func:`build`.
        images: Normalised images (B, 3, H, W).
        anchor: Identity of the window: level, row, column, index of its size. Upstream's pyramid is computed whole, of
            its head one level.
    """
    level, row, column, index = anchor
    head = network.head
    logits = head.cls_score(head.cls_subnet(_features(network, images)[level]))
    return logits.unflatten(1, (-1, network.num_classes))[:, index, :, row, column]


class _SwapAlign2Nat(nn.Module):
    """SwapAlign2Nat layer: upstream's where its operator runs, ours elsewhere."""

    def __init__(self, upstream: Any) -> None:
        super().__init__()
        self.upstream = upstream

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.upstream(x) if x.is_cuda else swap_align2nat(x, self.upstream.lambda_val)
        return y


def _network(size: TensorMaskSize, settings: TensorMaskSettings) -> Any:
    """Upstream's network with weights of its initialisation."""
    from detectron2.config import get_cfg
    from tensormask import TensorMask, add_tensormask_config

    config: Any = get_cfg()
    add_tensormask_config(config)
    config.merge_from_list([part for pair in _options(size, settings).items() for part in pair])
    network = TensorMask(config)
    for name, layer in network.head.named_children():
        if name.startswith("align2nat_"):
            setattr(network.head, name, _SwapAlign2Nat(layer))
    network.settings = settings
    return network


def _options(size: TensorMaskSize, settings: TensorMaskSettings) -> dict[str, Any]:
    """Upstream's configuration of a network.

    Raises:
        CheckpointError: there is none.
    """
    first = size.stages[0]
    blocks = tuple(stage.blocks for stage in size.stages)
    doubling = tuple(
        Stage(stage.blocks, first.bottleneck << index, first.channels << index)
        for index, stage in enumerate(size.stages)
    )
    if blocks not in DEPTHS or doubling != size.stages:
        wanted = f"ResNet-{', -'.join(map(str, DEPTHS.values()))} with channels that double, such as {RESNET50}"
        raise CheckpointError(f"backbone: detectron2 has only {wanted}; given {size.stages}")
    class_channels, box_channels, mask_channels = size.towers
    return {
        "MODEL.DEVICE": "cpu",
        "MODEL.MASK_ON": True,
        "MODEL.PIXEL_MEAN": list(settings.pixel_mean),
        "MODEL.PIXEL_STD": list(settings.pixel_std),
        "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
        "MODEL.RESNETS.DEPTH": DEPTHS[blocks],
        "MODEL.RESNETS.OUT_FEATURES": list(STAGES),
        "MODEL.RESNETS.STEM_OUT_CHANNELS": size.stem,
        "MODEL.RESNETS.WIDTH_PER_GROUP": first.bottleneck,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": first.channels,
        "MODEL.FPN.IN_FEATURES": list(STAGES),
        "MODEL.FPN.OUT_CHANNELS": size.channels,
        "MODEL.FPN.FUSE_TYPE": "avg",
        "MODEL.ANCHOR_GENERATOR.SIZES": [list(sizes) for sizes in settings.anchor_sizes],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0]],
        "MODEL.TENSOR_MASK.IN_FEATURES": list(LEVELS),
        "MODEL.TENSOR_MASK.ALIGNED_ON": True,
        "MODEL.TENSOR_MASK.BIPYRAMID_ON": True,
        "MODEL.TENSOR_MASK.NUM_CLASSES": size.classes,
        "MODEL.TENSOR_MASK.NUM_CONVS": size.convs,
        "MODEL.TENSOR_MASK.CLS_CHANNELS": class_channels,
        "MODEL.TENSOR_MASK.BBOX_CHANNELS": box_channels,
        "MODEL.TENSOR_MASK.MASK_CHANNELS": mask_channels,
        "MODEL.TENSOR_MASK.BBOX_REG_WEIGHTS": DELTA_WEIGHTS,
        "MODEL.TENSOR_MASK.TOPK_CANDIDATES_TEST": settings.candidates,
        "MODEL.TENSOR_MASK.NMS_THRESH_TEST": settings.nms_threshold,
        "TEST.DETECTIONS_PER_IMAGE": settings.detections,
    }


def _features(network: Any, images: Tensor) -> list[Tensor]:
    features = network.backbone(padded(images))
    return [features[level] for level in LEVELS]


def _identities(boxes: Tensor, settings: TensorMaskSettings) -> Tensor:
    """Windows of boxes that all differ; reverses :func:`~imagexplain.models.segmenters.tensormask.anchor_boxes`."""
    sizes = boxes.new_tensor(settings.anchor_sizes).flatten()
    which = (boxes[:, 2:3] - boxes[:, :1] - sizes).abs().argmin(1)
    level = which // len(settings.mask_sizes)
    stride = torch.tensor(STRIDES, device=boxes.device)[level, None]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    column, row = (centres / stride).round().long().unbind(1)
    return torch.stack([level, row, column, which % len(settings.mask_sizes)], dim=1)
