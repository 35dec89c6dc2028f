"""TensorMask: instance segmentation by sliding windows, each of which predicts a class, a box and a mask.

Paper: Chen, Girshick, He, Dollár, "TensorMask: A Foundation for Dense Object Segmentation", ICCV 2019, arXiv
1903.12174; the variant with aligned masks and the tensor bipyramid.

Provenance: names of the state dict, constants and formulas are those of detectron2's ``projects/TensorMask`` with its
6× configuration (https://github.com/facebookresearch/detectron2, Apache-2.0), whose published checkpoints load. The
code is written anew on torch and torchvision operators, for every device that PyTorch has.

A photo goes through :func:`normalised` and :func:`detect`. An explanation differentiates :func:`class_logits_at`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, batched_nms

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.segmenters.mask_pasting import paste_masks
from imagexplain.models.segmenters.resnet_fpn import (
    LEVELS,
    RESNET50,
    STAGES,
    STRIDES,
    FeaturePyramid,
    Norm,
    Stage,
    padded,
)
from imagexplain.models.segmenters.tensormask_head import Rectangle, TensorMaskHead, within
from imagexplain.vision.detections import Detections

DELTA_WEIGHTS = (1.5, 1.5, 0.75, 0.75)
"""Weights of the deltas dx, dy, dw, dh, which are predicted as multiples of 1 / these."""

LOG_SCALE_LIMIT = log(1000 / 16)
"""Largest logarithm of a scale: a box is at most 62.5 times as wide or high as its anchor."""


@dataclass(frozen=True)
class TensorMaskSettings:
    """Settings that the tensors of a checkpoint do not tell. Defaults: the 6× configuration.

    Attributes:
        mask_sizes: Side V of the masks at the finest level, one per window of a position. A window spans V units, so
            these are the sizes of the anchors too: see :attr:`anchor_sizes`.
        score_threshold: Probability that every detection exceeds.
        candidates: Number of most probable (window, class) pairs that go into non-maximum suppression.
        nms_threshold: Largest IoU of two boxes of one class; of two that overlap by more, the less probable one is
            dropped.
        detections: Largest number of detections kept per picture.
        pixel_mean: Means, subtracted from blue, green and red in 0 … 255.
        pixel_std: Standard deviations, by which the difference is divided.
    """

    mask_sizes: tuple[int, ...] = (11, 15)
    score_threshold: float = 0.05
    candidates: int = 6000
    nms_threshold: float = 0.5
    detections: int = 100
    pixel_mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def anchor_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Sides of the windows in pixels, per level and window."""
        return tuple(tuple(stride * size for size in self.mask_sizes) for stride in STRIDES)


@dataclass(frozen=True)
class TensorMaskSize:
    """Dimensions of a network. Defaults: the published ones, 36,514,370 parameters.

    Attributes:
        classes: Number of classes.
        stem: Channels before the first stage of the ResNet.
        stages: Four stages of the ResNet.
        channels: Channels of the feature pyramid.
        convs: Number of convolutions in each tower of the head.
        towers: Channels of the class, box and mask tower.
    """

    classes: int = 80
    stem: int = 64
    stages: tuple[Stage, ...] = RESNET50
    channels: int = 256
    convs: int = 4
    towers: tuple[int, int, int] = (256, 128, 128)


@dataclass(frozen=True)
class HeadOutputs:
    """Outputs that training compares with the truth; one tensor per level, of feature maps (B, C, H, W).

    Attributes:
        logits: Class logits (B, A, K, H, W), before the sigmoid.
        deltas: Box deltas (B, A, 4, H, W).
        features: Feature maps themselves, from which :meth:`TensorMaskHead.masks` computes masks.
    """

    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    features: tuple[Tensor, ...]


@dataclass(frozen=True)
class Selection:
    """Windows that are kept, most probable first.

    Attributes:
        boxes: Boxes (N, 4), float32, x0, y0, x1, y1 in pixels; they may reach beyond the picture.
        scores: Probabilities (N,), float32.
        labels: Classes (N,), int64, from 0.
        anchors: Identities (N, 4), int64: level, row, column, index of the window's size.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    anchors: Tensor


class TensorMask(nn.Module):
    """TensorMask network. Its ``forward`` is what training needs; a photo goes through :func:`detect`."""

    def __init__(self, size: TensorMaskSize, settings: TensorMaskSettings, norm: Norm = FrozenBatchNorm2d) -> None:
        """Build the network of these dimensions.

        Args:
            size: Dimensions of the network.
            settings: Settings beside the dimensions.
            norm: Batch norm; ``nn.BatchNorm2d`` to train from random weights.
        """
        super().__init__()
        self.settings = settings
        self.backbone = FeaturePyramid(size.stem, size.stages, size.channels, norm)
        self.head = TensorMaskHead(size.channels, size.classes, size.convs, size.towers, settings.mask_sizes)

    def forward(self, images: Tensor) -> HeadOutputs:
        """Compute the outputs for normalised images (B, 3, H, W)."""
        features = self.backbone(padded(images))
        logits, deltas = (tuple(map(predict, features)) for predict in (self.head.logits, self.head.deltas))
        return HeadOutputs(logits, deltas, features)


def normalised(images: Tensor, settings: TensorMaskSettings) -> Tensor:
    """Normalise images (B, 3, H, W), blue, green, red in 0 … 255 (float): less the mean, divided by the deviation."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (settings.pixel_mean, settings.pixel_std))
    return (images - mean) / std


@torch.no_grad()
def detect(
    network: TensorMask, image: Tensor, size: tuple[int, int] | None = None, threshold: float | None = None
) -> Detections:
    """Detect the instances in a photo.

    Boxes lie within it and are not empty; anchors are those of :class:`Selection`.

    Args:
        network: Network in ``eval()``.
        image: Normalised image (1, 3, H, W).
        size: Height and width of the photo, in which boxes and masks are wanted; default: H and W.
        threshold: Probability threshold in place of the settings' ``score_threshold``.

    Raises:
        ValueError: ``image`` has another shape.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        raise ValueError(f"image: wanted (1, 3, H, W), given {tuple(image.shape)}")
    given = (image.shape[2], image.shape[3])
    features = network.backbone(padded(image))
    selected = select(network, features, threshold)
    return in_photo(network, features, selected, given, size or given)


def select(network: TensorMask, features: Sequence[Tensor], threshold: float | None = None) -> Selection:
    """Select the windows of one picture to keep, by probability and non-maximum suppression within each class.

    Args:
        network: Network in ``eval()``.
        features: Feature maps of all levels, each (1, C, H, W).
        threshold: Probability threshold in place of the settings' ``score_threshold``.
    """
    settings = network.settings
    threshold = settings.score_threshold if threshold is None else threshold
    # (level, row, column, window, class) in this order, as upstream: it decides between equal scores.
    probabilities = torch.cat([network.head.logits(x)[0].permute(2, 3, 0, 1).flatten().sigmoid() for x in features])
    places = (probabilities > threshold).nonzero()[:, 0]
    scores, order = probabilities[places].sort(descending=True, stable=True)
    scores = scores[: settings.candidates]
    places = places[order[: settings.candidates]]
    labels = places % network.head.classes
    windows = places // network.head.classes
    shapes = [(x.shape[2], x.shape[3]) for x in features]
    anchors = identities(shapes, len(settings.mask_sizes), places.device)[windows]
    boxes = decoded(_deltas_at(network.head, features, anchors), anchor_boxes(anchors, settings))
    kept = batched_nms(boxes, scores, labels, settings.nms_threshold)[: settings.detections]
    return Selection(boxes[kept], scores[kept], labels[kept], anchors[kept])


def in_photo(
    network: TensorMask, features: Sequence[Tensor], selected: Selection, given: tuple[int, int], size: tuple[int, int]
) -> Detections:
    """Bring detections from the picture's pixels to the photo's: boxes clipped, empty ones dropped, masks pasted.

    Args:
        network: Network in ``eval()``.
        features: Feature maps of all levels, each (1, C, H, W).
        selected: Windows that are kept, in pixels of the picture.
        given: Height and width of the picture that the network saw, without padding.
        size: Height and width of the photo.
    """
    scale = selected.boxes.new_tensor([size[1] / given[1], size[0] / given[0]] * 2)
    limit = selected.boxes.new_tensor([size[1], size[0]] * 2)
    boxes = (selected.boxes * scale).clamp(min=0).minimum(limit)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    anchors = selected.anchors[kept]
    logits = network.head.masks(features, torch.cat([torch.zeros_like(anchors[:, :1]), anchors], dim=1))
    cut_outs = paste_masks(map(torch.sigmoid, logits), anchor_boxes(anchors, network.settings) * scale, size)
    scores, labels = selected.scores[kept], selected.labels[kept]
    return Detections(boxes[kept].cpu(), scores.cpu(), labels.cpu(), cut_outs, size, anchors.cpu())


def class_logits_at(network: TensorMask, images: Tensor, anchor: tuple[int, int, int, int]) -> Tensor:
    """Class logits of one window, differentiable with respect to the images.

    The window stays where it is while the images change, so this is a smooth function: there is no ranking, no
    non-maximum suppression and no mask in it. Of the head, only what this window depends on is computed.

    Args:
        network: Network in ``eval()``.
        images: Normalised images (B, 3, H, W).
        anchor: Identity of the window: level, row, column, index of its size.

    Returns:
        (B, K), before the sigmoid.

    Raises:
        ValueError: there is no such window in images of this size.
    """
    level, row, column, index = anchor
    if not (0 <= level < len(LEVELS) and 0 <= index < len(network.settings.mask_sizes)):
        counts = f"{len(LEVELS)} levels and {len(network.settings.mask_sizes)} windows"
        raise ValueError(f"anchor: wanted (level, row, column, window) of {counts}, given {anchor}")
    x = network.backbone.levels(padded(images), [level])[level]
    if not (0 <= row < x.shape[2] and 0 <= column < x.shape[3]):
        raise ValueError(f"anchor: wanted a position of {x.shape[2]} × {x.shape[3]} at level {level}, given {anchor}")
    part = Rectangle(row, column, row + 1, column + 1)
    return within(network.head.logits, x, part, network.head.reach)[:, index, :, 0, 0]


def identities(shapes: Sequence[tuple[int, int]], windows: int, device: torch.device | None = None) -> Tensor:
    """Windows (M, 4), int64, of feature maps of these heights and widths: level, row, column, index of the size."""
    axes = [
        torch.cartesian_prod(*(torch.arange(n, device=device) for n in (height, width, windows)))
        for height, width in shapes
    ]
    return torch.cat([torch.cat([torch.full_like(x[:, :1], level), x], 1) for level, x in enumerate(axes)])


def anchor_boxes(anchors: Tensor, settings: TensorMaskSettings) -> Tensor:
    """Boxes (N, 4), float32 x0, y0, x1, y1 in pixels, of windows (N, 4) int64, centred on multiples of the unit."""
    level, row, column, index = anchors.unbind(1)
    stride = torch.tensor(STRIDES, device=anchors.device)[level]
    half = torch.tensor(settings.anchor_sizes, device=anchors.device)[level, index] / 2
    centre = torch.stack([column * stride, row * stride] * 2, dim=1)
    return centre + torch.stack([-half, -half, half, half], dim=1)


def decoded(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Boxes (N, 4) moved and scaled by deltas (N, 4) dx, dy, dw, dh: by parts of their size, and by exponentials."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    deltas = deltas / deltas.new_tensor(DELTA_WEIGHTS)
    centres = boxes[:, :2] + 0.5 * sizes + deltas[:, :2] * sizes
    halves = 0.5 * deltas[:, 2:].clamp(max=LOG_SCALE_LIMIT).exp() * sizes
    return torch.cat([centres - halves, centres + halves], dim=1)


def _deltas_at(head: TensorMaskHead, features: Sequence[Tensor], anchors: Tensor) -> Tensor:
    """Deltas (N, 4) of some windows (N, 4), from the part of each map that these depend on."""
    deltas = features[0].new_zeros(len(anchors), 4)
    for level in anchors[:, 0].unique().tolist():
        chosen = (anchors[:, 0] == level).nonzero()[:, 0]
        _, row, column, index = anchors[chosen].unbind(1)
        part = Rectangle(int(row.min()), int(column.min()), int(row.max()) + 1, int(column.max()) + 1)
        found = within(head.deltas, features[level], part, head.reach)
        deltas[chosen] = found[0, index, :, row - part.top, column - part.left]
    return deltas


def build(state: Mapping[str, Tensor], settings: TensorMaskSettings | None = None) -> TensorMask:
    """Build the network of a checkpoint, in ``eval()``; its dimensions are inferred from the shapes.

    Args:
        state: Tensors under detectron2's names.
        settings: Settings of the network; those of the 6× configuration by default.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of a wrong shape, or contradicts the settings.
        ValueError: the shapes are those of no such network.
    """
    settings = settings or TensorMaskSettings()
    weights = without_constants(state, settings)
    size = size_of(weights, len(settings.mask_sizes))
    with torch.device("meta"):
        model = TensorMask(size, settings)
    checkpoint.fill(model, weights)
    # Filters and maps in one memory layout, the faster one; it costs a copy of the weights.
    return model.to(memory_format=torch.channels_last)


def without_constants(state: Mapping[str, Tensor], settings: TensorMaskSettings) -> dict[str, Tensor]:
    """Weights of a state dict, without its constants.

    Checkpoints published before 2021 hold the pixels' mean and deviation and the anchors' corners too; these have to
    agree with the settings.

    Raises:
        CheckpointError: they do not.
    """
    weights = dict(state)
    for name, wanted in _constants(settings).items():
        given = weights.pop(name, wanted)
        if given.shape != wanted.shape or not torch.allclose(given.to(wanted), wanted):
            raise CheckpointError(f"{name}: wanted {wanted.flatten().tolist()}, given {given.flatten().tolist()}")
    return weights


def export(model: nn.Module) -> dict[str, Tensor]:
    """State dict of a :class:`TensorMask`, under detectron2's names."""
    return checkpoint.exported(model)


def size_of(state: Mapping[str, Tensor], windows: int) -> TensorMaskSize:
    """Dimensions that a checkpoint's shapes tell.

    Args:
        state: Tensors under detectron2's names.
        windows: Number of sizes of windows per position.
    """

    def channels(name: str) -> int:
        return checkpoint.shape(state, f"{name}.weight", 4)[0]

    stages = []
    for stage in STAGES:
        pattern = re.compile(rf"backbone\.bottom_up\.{stage}\.(\d+)\.")
        blocks = len({found[1] for name in state if (found := pattern.match(name))})
        block = f"backbone.bottom_up.{stage}.0"
        stages.append(Stage(blocks, channels(f"{block}.conv1"), channels(f"{block}.conv3")))
    return TensorMaskSize(
        classes=channels("head.cls_score") // windows,
        stem=channels("backbone.bottom_up.stem.conv1"),
        stages=tuple(stages),
        channels=channels("backbone.fpn_output2"),
        convs=sum(bool(re.fullmatch(r"head\.cls_subnet\.\d+\.weight", name)) for name in state),
        towers=(channels("head.cls_subnet.0"), channels("head.bbox_subnet.0"), channels("head.mask_subnet.0")),
    )


def _constants(settings: TensorMaskSettings) -> dict[str, Tensor]:
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.pixel_mean, settings.pixel_std))
    constants = {"pixel_mean": mean, "pixel_std": std}
    for level, sizes in enumerate(settings.anchor_sizes):
        halves = torch.tensor(sizes)[:, None] / 2
        constants[f"anchor_generator.cell_anchors.{level}"] = torch.cat([-halves, -halves, halves, halves], dim=1)
    return constants
